"""How a hybrid study writes numbers, names and lists. No arithmetic beyond units."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tombola.reports.intervals import Estimate

NETWORK = {
    "pixels": "raw pixels",
    "pca": "PCA",
    "base": "frozen base",
    "head": "base + dense head",
    "head ticket": "base + head's ticket",
    "dense": "dense",
    "ticket": "ticket",
}
MISSING = "–"
"""In a table: there is no number, and a note says why."""


def signed(difference: Estimate) -> str:
    """`+0.34 ± 0.20 points`, with a real minus; one replicate alone has no interval, and says so."""
    half = difference.half_width
    spread = "points, one replicate" if half is None else f"± {half:.2f} points"
    return f"{points(difference.mean)} {spread}"


def points(value: float) -> str:
    """`+0.34`, with a real minus."""
    return f"{value:+.2f}".replace("-", "−")


def mega(flops: float) -> str:
    """FLOPs in millions with three figures."""
    return _figured(flops / 1e6)


def mega_estimate(flops: Estimate) -> str:
    """`12.3 ± 0.4`, in millions, both to the same place; without an interval the mean alone."""
    if flops.half_width is None:
        return mega(flops.mean)
    return f"{mega(flops.mean)} ± {flops.half_width / 1e6:.{_places(flops.mean / 1e6)}f}"


def kilo(size: float) -> str:
    """Bytes in kB (1000 bytes) with three figures."""
    return _figured(size / 1e3)


def share(value: float) -> str:
    """A share in percent, never rounded to none or to all: `12.3%`, `0.0043%`, `99.98%`."""
    percent = 100 * value
    if percent and abs(percent) < 0.1:
        return f"{percent:.2g}%"
    return f"{percent:.2f}%" if 99.9 < percent < 100 else f"{percent:.1f}%"


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
