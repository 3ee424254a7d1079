"""How studies write numbers: one form for each kind of thing. No arithmetic beyond units."""

from __future__ import annotations

from tombola.reports.intervals import Estimate


def duration(seconds: float) -> str:
    """`12 s`, `12 min`, `1.5 h`."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def half_width(value: Estimate) -> str:
    """`1.20 ± 0.31`, with a real minus."""
    half = "" if value.half_width is None else f" ± {value.half_width:.2f}"
    return f"{value.mean:.2f}{half}".replace("-", "−")


def interval(value: Estimate) -> str:
    """`1.20 points (95 % CI 0.89 to 1.51, n = 5)`, with a real minus."""
    if value.low is None or value.high is None:
        return f"{half_width(value)} points"
    said = f"{value.mean:.2f} points (95 % CI {value.low:.2f} to {value.high:.2f}, n = {value.n})"
    return said.replace("-", "−")


def whole_percent(fraction: float) -> str:
    """`90%`, `99.9%`: of a number that a person wrote, as many digits as it takes."""
    return f"{100 * fraction:.6g}%"
