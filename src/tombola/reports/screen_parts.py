"""What all of plotly's drawings share: layout, axes, dashes, and text that is shown as it is."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from tombola.reports.axes import Axis
from tombola.reports.chart import Moment, Span
from tombola.reports.nature import BASELINE_DASH, FONTS, LIGHT, SCREEN

SMALLEST = SCREEN.small - 1
"""Pixels of the smallest text that is read on a screen."""
MOST_NAMED = 24
"""Spans that are named at the top; more names would lie over each other."""


def dashes(dash: tuple[float, ...], width: float) -> str:
    """A dash in Plotly's words, for lines of this width."""
    return ",".join(f"{part * width:g}px" for part in dash) or "solid"


def layout_of(title: str) -> dict[str, Any]:
    lower = 8 + 5 * title.count("\n")  # plotly lifts titles of several lines
    top = {"y": 1, "yref": "container", "yanchor": "top", "pad": {"t": lower}}
    named = {"title": {"text": plain(title), "font": {"size": SCREEN.small}, **top}} if title else {}
    return {
        "font": {"family": ", ".join((*FONTS, "sans-serif")), "size": SCREEN.small, "color": LIGHT.ink},
        "paper_bgcolor": LIGHT.paper,
        "plot_bgcolor": LIGHT.paper,
        "margin": {"l": 56, "r": 14, "t": 34 + 17 * title.count("\n") if title else 14, "b": 52},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": LIGHT.paper, "bordercolor": LIGHT.ink, "font": {"color": LIGHT.ink}, "align": "left"},
        **named,
    }


def axis_of(axis: Axis) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "linecolor": LIGHT.ink,
        "linewidth": SCREEN.thin,
        "ticks": "outside",
        "tickwidth": SCREEN.thin,
        "ticklen": 5,
        "tickcolor": LIGHT.ink,
        "tickfont": {"size": SCREEN.small},
        "automargin": True,
        "title": {"text": plain(axis.title), "font": {"size": SCREEN.text}, "standoff": 10},
        "separatethousands": True,
    }
    if axis.ticks:
        settings |= {"tickvals": [at for at, _ in axis.ticks], "ticktext": [plain(label) for _, label in axis.ticks]}
    if axis.log:
        settings["type"] = "log"
    if axis.range is not None:
        settings["range"] = [math.log10(end) if axis.log else end for end in axis.range]
    return settings


def spans_behind(spans: Sequence[Span]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Shapes of every second span, and annotations that name all of them at the top."""
    whole = {"xref": "x", "yref": "paper", "y0": 0, "y1": 1}
    shapes = [
        {"type": "rect", **whole, "x0": one.start, "x1": one.end, "fillcolor": LIGHT.span, "line": {"width": 0}}
        | {"layer": "below"}
        for one in spans[::2]
    ]
    font = {"size": SMALLEST, "color": LIGHT.ink}
    named = {"xref": "x", "yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False, "textangle": -90}
    labels = [
        {"x": (one.start + one.end) / 2, "text": plain(one.label), "xanchor": "center", "font": font, **named}
        for one in spans
        if one.label and len(spans) <= MOST_NAMED
    ]
    return shapes, labels


def moments_across(moments: Sequence[Moment]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Shapes of vertical lines, and annotations that say at their feet what happened."""
    line = {"color": LIGHT.ink, "width": SCREEN.thin, "dash": dashes(BASELINE_DASH, SCREEN.line)}
    whole = {"xref": "x", "yref": "paper", "y0": 0, "y1": 1}
    shapes = [{"type": "line", **whole, "x0": one.x, "x1": one.x, "line": line} for one in moments]
    font = {"size": SMALLEST, "color": LIGHT.ink}
    labels = [
        {"x": one.x, "y": 0.01, "xref": "x", "yref": "paper", "text": plain(one.label), "font": font}
        | {"showarrow": False, "xanchor": "left", "yanchor": "bottom", "textangle": -90}
        for one in moments
    ]
    return shapes, labels


def with_marks(layout: dict[str, Any], spans: Sequence[Span], moments: Sequence[Moment]) -> dict[str, Any]:
    """A layout with these behind and across its axes, and room for the names of spans."""
    if not spans and not moments:
        return layout
    behind, names = spans_behind(spans)
    across, labels = moments_across(moments)
    longest = max((len(one["text"]) for one in names), default=0)
    margin = layout["margin"] | {"t": max(layout["margin"]["t"], 10 + 6 * longest)}
    return layout | {"shapes": [*behind, *across], "annotations": [*names, *labels], "margin": margin}


def plain(text: str) -> str:
    """Plotly reads some HTML in every text: names are shown as they are, in as many lines."""
    return html.escape(text, quote=False).replace("\n", "<br>")


def lines_of(lines: list[str]) -> str:
    return "<br>".join(plain(line) for line in lines)
