"""Axes that both drawings of a chart take over: their titles, ranges and ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

DENSITY_TICKS = (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1)
MARGIN = 1.12
"""How far a logarithmic axis reaches beyond its outermost values, as a factor."""


@dataclass(frozen=True)
class Axis:
    """An axis; what is empty or None is left to the drawing. `range` runs from the first end to the last."""

    title: str
    ticks: tuple[tuple[float, str], ...] = ()
    log: bool = False
    range: tuple[float, float] | None = None


def density_axis(title: str, densities: Sequence[float]) -> Axis:
    """A logarithmic axis of weights remaining, in percent, from dense downward.

    Args:
        title: what stands beside the axis.
        densities: the values to be shown, above 0.

    Examples:
        >>> [label for _, label in density_axis("Weights (%)", [100, 51.3, 21.2, 4.8]).ticks]
        ['100', '50', '20', '10', '5']
    """
    low, high = min(densities), max(densities)
    ticks: list[float] = [tick for tick in DENSITY_TICKS if low / MARGIN <= tick <= high * MARGIN]
    if len(ticks) < 3:  # a short range: the densities themselves
        ticks = sorted({float(f"{density:.2g}") for density in densities}, reverse=True)[:8]
    return Axis(title, tuple((tick, f"{tick:g}") for tick in ticks), True, (high * MARGIN, low / MARGIN))


def factor_axis(title: str, values: Sequence[float]) -> Axis:
    """A logarithmic axis of positive ratios, with ticks at 1, 2, 5 and their tenfolds.

    Args:
        title: what stands beside the axis.
        values: the values to be shown, above 0.

    Examples:
        >>> [label for _, label in factor_axis("Speed-up (×)", [0.7, 4.0]).ticks]
        ['1', '2']
    """
    low, high = min(values) / 1.2, max(values) * 1.2
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= high]
    if len(shown) < 2:  # a short range: the nearest ones around it
        shown = [max(t for t in ticks if t <= low), *shown, min(t for t in ticks if t >= high)]
    ends = min(low, *shown), max(high, *shown)
    return Axis(title, tuple((tick, f"{tick:g}") for tick in shown), True, ends)


def named_axis(title: str, names: Sequence[str]) -> Axis:
    """An axis of named places, the first at 0."""
    return Axis(title, tuple((float(index), name) for index, name in enumerate(names)))
