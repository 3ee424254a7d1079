"""What all of matplotlib's drawings share: axes, their frame, dashes, what lies behind and across them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tombola.reports.axes import Axis
from tombola.reports.chart import Moment, Span
from tombola.reports.nature import BASELINE_DASH, LIGHT, Sizes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NAMED = 40
"""Spans that are named at the top; more names would lie over each other."""


def set_axis(axes: Axes, which: str, axis: Axis, sizes: Sizes) -> None:
    """Title, scale, range and ticks; names of many places are turned, for side by side they would run together."""
    set_of = {name: getattr(axes, f"set_{which}{name}") for name in ("label", "scale", "lim", "ticks")}
    set_of["label"](axis.title, fontsize=sizes.text, color=LIGHT.ink)
    if axis.log:
        set_of["scale"]("log")
    if axis.ticks:
        turned = {"rotation": 30, "ha": "right"} if which == "x" and _are_wide(axis.ticks) else {}
        set_of["ticks"]([at for at, _ in axis.ticks], [label for _, label in axis.ticks], **turned)
        axes.minorticks_off()
    if axis.range is not None:
        set_of["lim"](*axis.range)


def _are_wide(ticks: Sequence[tuple[float, str]]) -> bool:
    return sum(len(label) for _, label in ticks) > 80


def frame(axes: Axes, sizes: Sizes) -> None:
    axes.tick_params(labelsize=sizes.small, width=sizes.thin, length=2.5, color=LIGHT.ink, labelcolor=LIGHT.ink)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(linewidth=sizes.thin, color=LIGHT.ink)


def dashed(dash: tuple[float, ...]) -> Any:
    """In widths of the line, as matplotlib has it."""
    return (0, dash) if dash else "solid"


def draw_marks(axes: Axes, spans: Sequence[Span], moments: Sequence[Moment], sizes: Sizes) -> None:
    """Every second span shaded behind the series, all named above the axes; vertical lines where something happened."""
    above: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "fontsize": sizes.small - 1, "rotation": 90}
    first, last = sorted(axes.get_xlim())
    for number, one in enumerate(spans):
        if number % 2 == 0:
            axes.axvspan(one.start, one.end, color=LIGHT.span, linewidth=0, zorder=0)
        middle = (one.start + one.end) / 2
        if one.label and len(spans) <= MOST_NAMED and first <= middle <= last:
            axes.text(middle, 1.01, one.label, ha="center", va="bottom", **above)
    for moment in moments:
        axes.axvline(moment.x, color=LIGHT.ink, linewidth=sizes.thin, linestyle=dashed(BASELINE_DASH))
        axes.text(moment.x, 0.02, moment.label, ha="left", va="bottom", **above)


def room_above(spans: Sequence[Span], sizes: Sizes) -> float:
    """Points between axes and their title, with room for the names of spans."""
    longest = max((len(one.label) for one in spans), default=0) if len(spans) <= MOST_NAMED else 0
    return sizes.small + 0.62 * (sizes.small - 1) * longest
