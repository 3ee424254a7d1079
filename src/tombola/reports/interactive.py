"""Charts for pages, in Plotly's words: plain dictionaries, which a page's script hands to plotly.js.

Colours are those of light pages; the script exchanges them in the dark. No legend: the page has one that wraps.
"""

from __future__ import annotations

from typing import Any

from tombola.reports.axes import Axis
from tombola.reports.chart import Chart, Series
from tombola.reports.described import Figure, hover
from tombola.reports.dots import Dots, Radar
from tombola.reports.grid import Grid
from tombola.reports.heatmap import Heatmap
from tombola.reports.nature import BASELINE_DASH, LIGHT, RING, SCREEN, Style
from tombola.reports.on_screen import dots_on_screen, grid_on_screen, radar_on_screen, traces_on_screen
from tombola.reports.screen_parts import axis_of, dashes, layout_of, lines_of, plain, with_marks
from tombola.reports.traces import Traces


def plotly_figure(figure: Figure) -> dict[str, Any]:
    """Data and layout of a figure.

    Args:
        figure: the description.

    Returns:
        What `Plotly.react` takes: `data` and `layout`. Each name of a series is the name of one trace; bands have none.
    """
    match figure:
        case Heatmap():
            return {"data": [_cells(figure)], "layout": _map_layout(figure)}
        case Grid():
            return grid_on_screen(figure)
        case Dots():
            return dots_on_screen(figure)
        case Radar():
            return radar_on_screen(figure)
        case Traces():
            return traces_on_screen(figure)
    return _chart(figure)


def _chart(figure: Chart) -> dict[str, Any]:
    bands = [band for series, style in figure.drawn for band in _band(figure, series, style)]
    lines = [_line(figure, series, style) for series, style in figure.drawn]  # after every band, which would tint them
    return {"data": [*bands, *lines, *_baseline(figure), *_ring(figure)], "layout": _chart_layout(figure)}


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
        "name": plain(series.name),
        "x": series.x,
        "y": [estimate.mean for estimate in series.y],
        "mode": "lines+markers" if chart.has_symbols(series) else "lines",
        "line": {"color": style.colour, "width": SCREEN.line, "dash": dashes(style.dash, SCREEN.line)}
        | ({"shape": "hvh"} if chart.steps else {}),
        "marker": {"symbol": style.symbol, "size": SCREEN.symbol, "color": style.colour},
        "text": [lines_of(hover(chart, series, index)) for index in range(len(series.x))],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _baseline(chart: Chart) -> list[dict[str, Any]]:
    if chart.baseline is None:
        return []
    name, value = chart.baseline
    line = {"color": LIGHT.baseline, "width": SCREEN.line, "dash": dashes(BASELINE_DASH, SCREEN.line)}
    shown = {"text": [lines_of([name, f"{chart.y_title}: {value:.4g}"])] * 2, "hovertemplate": "%{text}<extra></extra>"}
    ends = {"x": list(chart.ends), "y": [value, value]}
    return [{"type": "scatter", "name": plain(name), **ends, "mode": "lines", "line": line, **shown}]


def _ring(chart: Chart) -> list[dict[str, Any]]:
    if chart.mark is None:
        return []
    ring = {"symbol": "circle-open", "size": RING * SCREEN.symbol, "color": LIGHT.ink, "line": {"width": SCREEN.line}}
    at = {"x": [chart.mark.x], "y": [chart.mark.y], "mode": "markers", "marker": ring}
    return [{"type": "scatter", "name": plain(chart.mark.label), **at, "hoverinfo": "skip"}]


def _chart_layout(chart: Chart) -> dict[str, Any]:
    axes = {"xaxis": axis_of(chart.x_axis), "yaxis": axis_of(chart.y_axis)}
    return with_marks({**layout_of(chart.title), **axes}, chart.spans, chart.moments)


def _cells(heatmap: Heatmap) -> dict[str, Any]:
    bar = {
        "title": {"text": plain(heatmap.unit), "side": "top", "font": {"size": SCREEN.small}},
        "orientation": "h",
        "thickness": 12,
        "x": 0.5,
        "y": -0.06 if not heatmap.is_named else -0.3,
        "yanchor": "top",
        "tickfont": {"size": SCREEN.small},
        "nticks": 4,
        "outlinewidth": 0,
    }
    unit = f"{plain(heatmap.unit)}: %{{z:.4g}}<extra></extra>"
    names = {"x": [plain(name) for name in heatmap.columns], "y": [plain(name) for name in heatmap.rows]}
    place = names if heatmap.is_named else {}
    where = f"%{{y}}<br>{plain(heatmap.x_title)}: %{{x}}" if heatmap.is_named else "row %{y}, column %{x}, from 0"
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
    layout = layout_of(heatmap.title)
    if not heatmap.is_named:
        hidden = {"visible": False, "fixedrange": True}
        square = {"scaleanchor": "x", "autorange": "reversed", "constrain": "domain"}
        margins = {"l": 4, "r": 4, "t": 34, "b": 4}
        return layout | {"xaxis": hidden | {"constrain": "domain"}, "yaxis": hidden | square, "margin": margins}
    x, y = axis_of(Axis(heatmap.x_title)), axis_of(Axis(""))
    return layout | {"xaxis": x | {"type": "category"}, "yaxis": y | {"type": "category", "autorange": "reversed"}}
