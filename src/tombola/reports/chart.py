"""What a chart shows, described once. `interactive` draws it for pages, `printed` as PNG and SVG, `described` in words.

Nothing here knows a drawing library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tombola.reports.axes import Axis, density_axis, factor_axis, named_axis
from tombola.reports.intervals import Estimate
from tombola.reports.nature import STYLES, Style

MOST_MARKERS = 40
"""Points of a line that get a symbol each; of more the line says as much."""


@dataclass(frozen=True)
class Series:
    """A named line: x, and an estimate at each x. `style` is its index in the house palette."""

    name: str
    x: list[float]
    y: list[Estimate]
    style: int

    def band(self) -> tuple[list[float], list[float], list[float]] | None:
        """x, lower and upper edge where there is an interval; None when there is none anywhere."""
        points = [
            (x, e.low, e.high) for x, e in zip(self.x, self.y, strict=True) if e.low is not None and e.high is not None
        ]
        if not points:
            return None
        xs, lows, highs = zip(*points, strict=True)
        return list(xs), list(lows), list(highs)


def styled(series: Sequence[Series]) -> list[tuple[Series, Style]]:
    """As many series as the palette tells apart, each in a style that no other one has.

    A series keeps its own style where that is free, so that the same thing looks the same in every chart.
    """
    shown = list(series)[: len(STYLES)]
    wanted: dict[int, int] = {}
    for place, one in enumerate(shown):
        if 0 <= one.style < len(STYLES):
            wanted.setdefault(one.style, place)
    taken = {place: style for style, place in wanted.items()}
    free = iter(style for style in range(len(STYLES)) if style not in wanted)
    return [(one, STYLES[taken[place] if place in taken else next(free)]) for place, one in enumerate(shown)]


@dataclass(frozen=True)
class Mark:
    """A point that a ring is drawn round: the winning round."""

    label: str
    x: float
    y: float


@dataclass(frozen=True)
class Span:
    """A stretch of x that is shaded, and what it is called; neighbours take turns in being shaded."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Moment:
    """A vertical line, and what happened there."""

    x: float
    label: str


@dataclass(frozen=True)
class Chart:
    """Series over x, perhaps with a horizontal baseline.

    `within` is the range that values can have at all; an interval may reach beyond, its band does not. With
    `over_density` x are percents of weights that remain, from dense downward. With `factors` values are positive
    ratios, on a logarithmic axis. With `places` x counts named places from 0 on, and these are the names. With `steps`
    values hold for intervals around their x, as in a histogram. `spans` lie behind the series, `moments` across them.
    `title` names one of several charts side by side.
    """

    x_title: str
    y_title: str
    series: Sequence[Series]
    baseline: tuple[str, float] | None = None
    over_density: bool = False
    within: tuple[float, float] | None = None
    factors: bool = False
    places: Sequence[str] = ()
    mark: Mark | None = None
    steps: bool = False
    title: str = ""
    spans: Sequence[Span] = ()
    moments: Sequence[Moment] = ()

    @property
    def drawn(self) -> list[tuple[Series, Style]]:
        """The series that are drawn, as many as the palette tells apart, each in a style that no other one has."""
        return styled(self.series)

    @property
    def left_out(self) -> list[str]:
        """The names of series beyond the palette: a colour that comes twice would say something false."""
        return [series.name for series in list(self.series)[len(STYLES) :]]

    def band(self, series: Series) -> tuple[list[float], list[float], list[float]] | None:
        """The series' band, clipped to what its values can be."""
        band = series.band()
        if band is None or self.within is None:
            return band
        low, high = self.within
        return band[0], [max(low, y) for y in band[1]], [min(high, y) for y in band[2]]

    def has_symbols(self, series: Series) -> bool:
        """Whether each point of a series gets its symbol."""
        return len(series.x) <= MOST_MARKERS and not self.steps

    @property
    def x_axis(self) -> Axis:
        if self.over_density:
            return density_axis(self.x_title, [x for series in self.series for x in series.x])
        return named_axis(self.x_title, self.places)

    @property
    def y_axis(self) -> Axis:
        if not self.factors:
            return Axis(self.y_title)
        values = [estimate.mean for series in self.series for estimate in series.y]
        return factor_axis(self.y_title, values if self.baseline is None else [*values, self.baseline[1]])

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest x, between which a baseline is drawn."""
        xs = [x for series in self.series for x in series.x]
        return min(xs), max(xs)
