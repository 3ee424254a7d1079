"""Estimates of named things side by side: as dots with their intervals, or as polygons on spokes of a radar.

Both take the same series, whose x counts the `places` from 0 on. Nothing here knows a drawing library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tombola.reports.chart import Series, styled
from tombola.reports.nature import Style

LEAST_SPREAD = 1e-9
"""Of a value: what differs by less differs by rounding, and no axis has ticks for it."""


@dataclass(frozen=True)
class Missing:
    """Where a dot would be, had it a value."""

    series: str
    place: int
    reason: str


@dataclass(frozen=True)
class Dots:
    """A dot plot: places from the top, in each the series below each other, perhaps a reference line across all.

    `range` fixes the axis, and what lies beyond is drawn at its end; without one it reaches as far as intervals do.
    """

    x_title: str
    places: Sequence[str]
    series: Sequence[Series]
    missing: Sequence[Missing] = ()
    baseline: tuple[str, float] | None = None
    range: tuple[float, float] | None = None
    title: str = ""

    @property
    def drawn(self) -> list[tuple[Series, Style]]:
        """The series that are drawn, each in a style that no other one has."""
        return styled(self.series)

    def height(self, index: int, place: float) -> float:
        """Where series number `index` has its dot in a place: all of a place's within a band of 0.7 around it."""
        count = max(1, len(self.drawn))
        return place + 0.7 * ((index + 0.5) / count - 0.5)

    def at(self, missing: Missing) -> float:
        """The height of what is missing."""
        names = [series.name for series, _ in self.drawn]
        return self.height(names.index(missing.series), missing.place)

    @property
    def shown_missing(self) -> list[Missing]:
        """What is missing of the series that are drawn."""
        names = {series.name for series, _ in self.drawn}
        return [one for one in self.missing if one.series in names]

    @property
    def ends(self) -> tuple[float, float]:
        """The range of the axis."""
        if self.range is not None:
            return self.range
        values = [] if self.baseline is None else [self.baseline[1]]
        for series in self.series:
            for one in series.y:
                values += [one.mean, *(bound for bound in (one.low, one.high) if bound is not None)]
        low, high = min(values, default=0.0), max(values, default=1.0)
        alike = high - low <= LEAST_SPREAD * max(abs(low), abs(high))
        room = 0.5 if alike else 0.06 * (high - low)
        return low - room, high + room

    def within(self, value: float) -> float:
        """Where a value is drawn.

        Examples:
            >>> [Dots("", ["a"], [], range=(0.0, 1.0)).within(value) for value in (-2.0, 0.5, 7.0)]
            [0.0, 0.5, 1.0]
        """
        low, high = self.ends
        return min(max(value, low), high)

    @property
    def reasons(self) -> list[str]:
        """Why values are missing, each reason once."""
        return list(dict.fromkeys(one.reason for one in self.missing))


@dataclass(frozen=True)
class Radar:
    """Polygons on spokes from 0 in the middle to 1 at the rim; a value beyond is drawn at the end that it passed.

    A spoke without a value opens the polygon there.
    """

    places: Sequence[str]
    series: Sequence[Series]
    title: str = ""

    @property
    def drawn(self) -> list[tuple[Series, Style]]:
        """The series that are drawn, each in a style that no other one has."""
        return styled(self.series)

    @property
    def baseline(self) -> None:
        """A radar has none: what it is compared with is a polygon."""
        return

    def point(self, place: float, value: float) -> tuple[float, float]:
        """Where a value lies: the first spoke points up, the others follow clockwise.

        Examples:
            >>> [round(part, 3) for part in Radar(["a", "b", "c", "d"], []).point(1, 0.5)]
            [0.5, 0.0]
        """
        angle = 2 * math.pi * place / max(1, len(self.places))
        length = min(1.0, max(0.0, value))
        return length * math.sin(angle), length * math.cos(angle)

    def outline(self, series: Series) -> list[tuple[float, float] | None]:
        """The polygon's points, closed; None where a spoke has no value."""
        values = dict(zip(map(round, series.x), (one.mean for one in series.y), strict=True))
        points = [self.point(place, values[place]) if place in values else None for place in range(len(self.places))]
        return [*points, points[0]] if points else []
