"""How studies write numbers and lists: one form for each kind of thing. No arithmetic beyond units."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tombola.errors import counted as counted
from tombola.reports.intervals import Estimate
from tombola.reports.significance import Judged
from tombola.reports.tables import MISSING as MISSING


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


def signed(difference: Estimate) -> str:
    """`+0.34 points (95 % CI +0.14 to +0.54, n = 5)`, with a real minus; one replicate alone says that it has none."""
    mean = f"{points(difference.mean)} points"
    if difference.low is None or difference.high is None:
        return f"{mean} (one replicate, no interval)"
    return f"{mean} (95 % CI {points(difference.low)} to {points(difference.high)}, n = {difference.n})"


def cell(difference: Estimate) -> str:
    """The same for a table whose note says what it is: `+0.34 [+0.14, +0.54]`."""
    if difference.low is None or difference.high is None:
        return points(difference.mean)
    return f"{points(difference.mean)} [{points(difference.low)}, {points(difference.high)}]"


SINGULAR = {"points": "point", "nats a token": "nat a token"}
"""Of units whose plural is another word."""


def amount(value: float, unit: str = "points") -> str:
    """`1 point`, `0.5 points`; without a unit the number alone."""
    return f"{value:g} {SINGULAR.get(unit, unit) if value == 1 else unit}".rstrip()


def within(tolerance: float) -> str:
    """`within 1 point`, `within 0.5 points`."""
    return f"within {amount(tolerance)}"


def found_in_most(judged: Sequence[Judged], by: str = "") -> str:
    """What such a study finds in four of five cases, for one comparison or several; says what is not known without."""
    known = [one.detectable for one in judged if one.detectable is not None]
    if not known:
        return "one replicate has no spread, so that nothing is known of chance"
    low, high = f"{min(known):.2f}", f"{max(known):.2f}"
    span = f"{high} points" if low == high else f"{low} to {high} points{f', {by},' if by else ''}"
    return f"a true difference of {span} would be found in 80 % of such studies, a smaller one less often"


def points(value: float) -> str:
    """`+0.34`, with a real minus."""
    return f"{value:+.2f}".replace("-", "−")


def mega(flops: float) -> str:
    """FLOPs in millions with three figures."""
    return _figured(flops / 1e6)


def mega_estimate(flops: Estimate) -> str:
    """`12.3 MFLOPs (95 % CI 11.9 to 12.7)`; without an interval, or with none that can be seen, the mean alone."""
    mean = f"{mega(flops.mean)} MFLOPs"
    if flops.low is None or flops.high is None or mega(flops.low) == mega(flops.high):
        return mean
    return f"{mean} (95 % CI {mega(flops.low)} to {mega(flops.high)})"


def kilo(size: float) -> str:
    """Bytes in kB (1000 bytes) with three figures."""
    return _figured(size / 1e3)


def percent(value: float) -> str:
    """A fraction in percent, never rounded to none or to all: `12.3%`, `0.0043%`, `99.98%`."""
    of_hundred = 100 * value
    if of_hundred and abs(of_hundred) < 0.1:
        return f"{of_hundred:.2g}%"
    return f"{of_hundred:.2f}%" if 99.9 < of_hundred < 100 else f"{of_hundred:.1f}%"


def listed(names: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def begun(text: str) -> str:
    """A sentence's first letter large; the rest stays, names among it."""
    return text[:1].upper() + text[1:]


def _figured(value: float) -> str:
    return f"{value:,.{_places(value)}f}"


def _places(value: float) -> int:
    """Decimal places that give three figures, or whole numbers beyond 100; none for 0."""
    return max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
