"""Courses below each other over one axis, as an EEG has them: each in units of its own spread, with one scale bar.

Nothing here knows a drawing library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tombola.reports.chart import Span
from tombola.reports.nature import STYLES, Style

SPACING = 4.0
"""Standard deviations between one trace's middle and the next one's."""


@dataclass(frozen=True)
class Trace:
    """A named course: x, and how many standard deviations it lies from its mean there.

    `is_ended` draws a cross at its end: what it is of was removed. `group` numbers what it belongs to, by colour.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    is_ended: bool = False
    group: int = 0

    @property
    def style(self) -> Style:
        """The style of its group."""
        return STYLES[self.group % len(STYLES)]


@dataclass(frozen=True)
class Traces:
    """Traces from the top, bands of x behind them; `bar` is the height of the scale bar and what is written there."""

    x_title: str
    traces: Sequence[Trace]
    bar: tuple[float, str]
    spans: Sequence[Span] = ()
    title: str = ""

    def offset(self, index: int) -> float:
        """The height of a trace's middle."""
        return -SPACING * index

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest x."""
        xs = [x for trace in self.traces for x in trace.x]
        return (min(xs), max(xs)) if xs else (0.0, 1.0)
