"""The house style of figures: that of a Nature figure, for Plotly (pages) and matplotlib (PNG files).

89 mm single and 183 mm double column at 96 dpi, Arial 7 pt and 6 pt, thin black axes, ticks outside, no grid,
a palette that colour-blind readers can tell apart, and a symbol and a dash of its own for every series.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

PIXELS_PER_POINT = 96 / 72
DOUBLE_COLUMN = (692, 360)

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
DASHES = ("solid", "4px,2px", "1px,2px", "6px,2px,1px,2px", "8px,3px", "2px,2px", "solid")
BAND_OPACITY = 0.18
BASELINE = "#7F7F7F"

DENSITY_AXIS = "Weights remaining (%)"
DENSITY_TICKS = (100, 50, 20, 10, 5, 2, 1)


@dataclass(frozen=True)
class Style:
    """How one series is drawn; the same index gives the same look in every figure of a report."""

    colour: str
    symbol: str
    marker: str
    dash: str

    @classmethod
    def of(cls, index: int) -> Style:
        turn, i = divmod(index, len(COLOURS))
        j = (i + turn) % len(COLOURS)  # past the last colour they come again, with other symbols and dashes
        return cls(COLOURS[i], SYMBOLS[j], MARKERS[j], DASHES[j])

    @property
    def band(self) -> str:
        red, green, blue = (int(self.colour[i : i + 2], 16) for i in (1, 3, 5))
        return f"rgba({red},{green},{blue},{BAND_OPACITY})"


def pixels(points: float) -> float:
    return points * PIXELS_PER_POINT


def layout(x: str, y: str, size: tuple[int, int] = DOUBLE_COLUMN) -> dict[str, Any]:
    """The Plotly layout of a figure with these axis titles."""
    axis = {
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "linecolor": "black",
        "linewidth": pixels(0.5),
        "ticks": "outside",
        "tickwidth": pixels(0.5),
        "ticklen": pixels(2.5),
        "tickcolor": "black",
        "tickfont": {"size": pixels(6)},
    }
    return {
        "width": size[0],
        "height": size[1],
        "font": {"family": "Arial, Helvetica, sans-serif", "size": pixels(7), "color": "black"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 52, "r": 12, "t": 28, "b": 64},
        # Below the axis, clear of the data and of the button bar.
        "legend": {"font": {"size": pixels(6)}, "orientation": "h", "x": 0, "y": -0.16, "yanchor": "top"},
        "xaxis": axis | {"title": {"text": x, "font": {"size": pixels(7)}}},
        "yaxis": axis | {"title": {"text": y, "font": {"size": pixels(7)}}},
        "hovermode": "closest",
    }


def density_axis(densities: list[float]) -> dict[str, Any]:
    """Settings of a reversed logarithmic axis of weights remaining, in percent."""
    lowest = min(densities)
    ticks: list[float] = [tick for tick in DENSITY_TICKS if lowest / 1.5 <= tick <= max(densities) * 1.5]
    if len(ticks) < 3:  # a short range: the densities themselves
        ticks = sorted({float(f"{density:.2g}") for density in densities}, reverse=True)[:8]
    return {
        "type": "log",
        "autorange": "reversed",
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def factor_axis(values: list[float]) -> dict[str, Any]:
    """Settings of a logarithmic axis of positive ratios, with ticks at 1, 2, 5 and their tenfolds."""
    low, high = min(values) / 1.2, max(values) * 1.2
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= high]
    if len(shown) < 2:  # a short range: the nearest ones around it
        shown = [max(t for t in ticks if t <= low), *shown, min(t for t in ticks if t >= high)]
    return {
        "type": "log",
        "range": [math.log10(min(low, *shown)), math.log10(max(high, *shown))],
        "tickvals": shown,
        "ticktext": [f"{tick:g}" for tick in shown],
    }


CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "toImageButtonOptions": {"format": "svg"},
    "modeBarButtonsToRemove": ["select2d", "lasso2d"],
}
"""Plotly's settings beside the figure: the image button gives SVG."""
