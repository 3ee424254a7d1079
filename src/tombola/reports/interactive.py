"""Charts for pages, in Plotly's words: plain dictionaries, which a page's script hands to plotly.js.

Colours are those of light pages; the script exchanges them in the dark. No legend: the page has one that wraps.
"""

from __future__ import annotations

import html
import math
from typing import Any

from tombola.reports.axes import Axis
from tombola.reports.chart import Chart, Series
from tombola.reports.described import hover
from tombola.reports.heatmap import Heatmap
from tombola.reports.nature import BASELINE_DASH, FONTS, LIGHT, RING, SCREEN, Style


def plotly_figure(figure: Chart | Heatmap) -> dict[str, Any]:
    """Data and layout of a figure.

    Args:
        figure: the description.

    Returns:
        What `Plotly.react` takes: `data` and `layout`. Each name of a series is the name of one trace; bands have none.
    """
    if isinstance(figure, Heatmap):
        return {"data": [_cells(figure)], "layout": _map_layout(figure)}
    bands = [band for series, style in figure.drawn for band in _band(figure, series, style)]
    lines = [_line(figure, series, style) for series, style in figure.drawn]  # after every band, which would tint them
    return {"data": [*bands, *lines, *_baseline(figure), *_ring(figure)], "layout": _chart_layout(figure)}


def dashes(dash: tuple[float, ...], width: float) -> str:
    """A dash in Plotly's words, for lines of this width."""
    return ",".join(f"{part * width:g}px" for part in dash) or "solid"


def _band(chart: Chart, series: Series, style: Style) -> list[dict[str, Any]]:
    """A closed polygon, so that it is one shape when it is saved."""
    band = chart.band(series)
    if band is None:
        return []
    xs, lows, highs = band
    outline = {"x": xs + xs[::-1], "y": highs + lows[::-1], "mode": "lines", "line": {"width": 0}}
    hidden = {"hoverinfo": "skip", "showlegend": False}
    return [{"type": "scatter", **outline, "fill": "toself", "fillcolor": style.band, **hidden}]


def _line(chart: Chart, series: Series, style: Style) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": _plain(series.name),
        "x": series.x,
        "y": [estimate.mean for estimate in series.y],
        "mode": "lines+markers" if chart.has_symbols(series) else "lines",
        "line": {"color": style.colour, "width": SCREEN.line, "dash": dashes(style.dash, SCREEN.line)}
        | ({"shape": "hvh"} if chart.steps else {}),
        "marker": {"symbol": style.symbol, "size": SCREEN.symbol, "color": style.colour},
        "text": [_lines(hover(chart, series, index)) for index in range(len(series.x))],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _baseline(chart: Chart) -> list[dict[str, Any]]:
    if chart.baseline is None:
        return []
    name, value = chart.baseline
    line = {"color": LIGHT.baseline, "width": SCREEN.line, "dash": dashes(BASELINE_DASH, SCREEN.line)}
    shown = {"text": [_lines([name, f"{chart.y_title}: {value:.4g}"])] * 2, "hovertemplate": "%{text}<extra></extra>"}
    ends = {"x": list(chart.ends), "y": [value, value]}
    return [{"type": "scatter", "name": _plain(name), **ends, "mode": "lines", "line": line, **shown}]


def _ring(chart: Chart) -> list[dict[str, Any]]:
    if chart.mark is None:
        return []
    ring = {"symbol": "circle-open", "size": RING * SCREEN.symbol, "color": LIGHT.ink, "line": {"width": SCREEN.line}}
    at = {"x": [chart.mark.x], "y": [chart.mark.y], "mode": "markers", "marker": ring}
    return [{"type": "scatter", "name": _plain(chart.mark.label), **at, "hoverinfo": "skip"}]


def _chart_layout(chart: Chart) -> dict[str, Any]:
    return {**_layout(chart.title), "xaxis": _axis(chart.x_axis), "yaxis": _axis(chart.y_axis)}


def _layout(title: str) -> dict[str, Any]:
    named = {"title": {"text": _plain(title), "font": {"size": SCREEN.small}, "y": 0.97}} if title else {}
    return {
        "font": {"family": ", ".join((*FONTS, "sans-serif")), "size": SCREEN.small, "color": LIGHT.ink},
        "paper_bgcolor": LIGHT.paper,
        "plot_bgcolor": LIGHT.paper,
        "margin": {"l": 56, "r": 14, "t": 34 if title else 14, "b": 52},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": LIGHT.paper, "bordercolor": LIGHT.ink, "font": {"color": LIGHT.ink}, "align": "left"},
        **named,
    }


def _axis(axis: Axis) -> dict[str, Any]:
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
        "title": {"text": _plain(axis.title), "font": {"size": SCREEN.text}, "standoff": 10},
        "separatethousands": True,
    }
    if axis.ticks:
        settings |= {"tickvals": [at for at, _ in axis.ticks], "ticktext": [_plain(label) for _, label in axis.ticks]}
    if axis.log:
        settings["type"] = "log"
    if axis.range is not None:
        settings["range"] = [math.log10(end) if axis.log else end for end in axis.range]
    return settings


def _cells(heatmap: Heatmap) -> dict[str, Any]:
    bar = {
        "title": {"text": _plain(heatmap.unit), "side": "top", "font": {"size": SCREEN.small}},
        "orientation": "h",
        "thickness": 12,
        "x": 0.5,
        "y": -0.06 if not heatmap.is_named else -0.3,
        "yanchor": "top",
        "tickfont": {"size": SCREEN.small},
        "nticks": 4,
        "outlinewidth": 0,
    }
    unit = f"{_plain(heatmap.unit)}: %{{z:.4g}}<extra></extra>"
    names = {"x": [_plain(name) for name in heatmap.columns], "y": [_plain(name) for name in heatmap.rows]}
    place = names if heatmap.is_named else {}
    where = f"%{{y}}<br>{_plain(heatmap.x_title)}: %{{x}}" if heatmap.is_named else "row %{y}, column %{x}, from 0"
    return {
        "type": "heatmap",
        "z": [list(row) for row in heatmap.values],
        "zmin": 0,
        "zmax": heatmap.highest,
        "colorscale": [[0, LIGHT.low], [1, LIGHT.high]],
        "colorbar": bar,
        **place,
        "hovertemplate": f"{where}<br>{unit}",
    }


def _map_layout(heatmap: Heatmap) -> dict[str, Any]:
    layout = _layout(heatmap.title)
    if not heatmap.is_named:
        hidden = {"visible": False, "fixedrange": True}
        square = {"scaleanchor": "x", "autorange": "reversed", "constrain": "domain"}
        margins = {"l": 4, "r": 4, "t": 34, "b": 4}
        return layout | {"xaxis": hidden | {"constrain": "domain"}, "yaxis": hidden | square, "margin": margins}
    x, y = _axis(Axis(heatmap.x_title)), _axis(Axis(""))
    return layout | {"xaxis": x | {"type": "category"}, "yaxis": y | {"type": "category", "autorange": "reversed"}}


def _plain(text: str) -> str:
    """Plotly reads some HTML in every text: names are shown as they are."""
    return html.escape(text, quote=False)


def _lines(lines: list[str]) -> str:
    return "<br>".join(_plain(line) for line in lines)
