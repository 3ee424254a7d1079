"""Grids, dot plots, radars and traces in plotly's words; `interactive` has charts and maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tombola.reports.axes import Axis
from tombola.reports.chart import Series
from tombola.reports.dots import Dots, Missing, Radar
from tombola.reports.grid import Cell, Grid
from tombola.reports.nature import BASELINE_DASH, LIGHT, SCREEN, Style
from tombola.reports.screen_parts import SMALLEST, axis_of, dashes, layout_of, lines_of, plain, with_marks
from tombola.reports.tables import MISSING
from tombola.reports.traces import Trace, Traces

HATCHES = 4
"""Lines of an empty cell's hatching."""
RIM = 1.42
"""How far a radar's axes reach, in radii, so that the names of its spokes have room."""


def grid_on_screen(grid: Grid) -> dict[str, Any]:
    """Data and layout of a grid: cells by colour, their texts as annotations, empty ones hatched."""
    colours = [[0, LIGHT.worse], [0.5, LIGHT.even], [1, LIGHT.better]]
    strengths = [[grid.strength(cell) for cell in row] for row in grid.cells]
    said = [[_cell_said(grid, row, column) for column in range(len(grid.columns))] for row in range(len(grid.rows))]
    shading = {"colorscale": colours, "zmin": -1, "zmax": 1, "showscale": False, "xgap": 2, "ygap": 2}
    cells = {
        "type": "heatmap",
        "z": strengths,
        "x": [*range(len(grid.columns))],
        "y": [*range(len(grid.rows))],
        "text": said,
        "hovertemplate": "%{text}<extra></extra>",
        "hoverongaps": False,
        **shading,
    }
    x = axis_of(Axis(grid.x_title, _ticks(grid.columns), range=(-0.5, len(grid.columns) - 0.5)))
    y = axis_of(Axis("", _ticks(grid.rows), range=(len(grid.rows) - 0.5, -0.5)))
    places = [(row, column) for row in range(len(grid.rows)) for column in range(len(grid.columns))]
    texts = [_cell_text(grid.cells[row][column], row, column) for row, column in places]
    empty = [(row, column) for row, column in places if grid.cells[row][column].value is None]
    shapes = [line for row, column in empty for line in _hatched(row, column)]
    layout = layout_of(grid.title) | {"xaxis": x | {"ticks": ""}, "yaxis": y | {"ticks": ""}}
    return {"data": [cells], "layout": layout | {"annotations": texts, "shapes": shapes}}


def _cell_said(grid: Grid, row: int, column: int) -> str:
    cell = grid.cells[row][column]
    what = cell.text if cell.value is not None else f"{MISSING} ({cell.reason})"
    return lines_of([grid.rows[row], f"{grid.x_title}: {grid.columns[column]}", *what.split("\n")])


def _cell_text(cell: Cell, row: int, column: int) -> dict[str, Any]:
    text = plain(cell.text) if cell.value is not None else MISSING
    font = {"size": SMALLEST, "color": LIGHT.ink}
    behind = {"bgcolor": LIGHT.paper} if cell.value is None else {}
    return {"x": column, "y": row, "text": text, "showarrow": False, "font": font, **behind}


def _hatched(row: int, column: int) -> list[dict[str, Any]]:
    """Diagonals from the lower left to the upper right of a cell, evenly apart."""
    line = {"color": LIGHT.baseline, "width": SCREEN.thin}
    left, top, found = column - 0.48, row - 0.48, []
    for number in range(1, 2 * HATCHES):
        along = 0.96 * number / HATCHES
        start = (left, top + along) if along <= 0.96 else (left + along - 0.96, top + 0.96)
        end = (left + along, top) if along <= 0.96 else (left + 0.96, top + along - 0.96)
        found.append({"type": "line", "x0": start[0], "y0": start[1], "x1": end[0], "y1": end[1], "line": line})
    return found


def _ticks(names: Sequence[str]) -> tuple[tuple[float, str], ...]:
    return tuple((float(place), name) for place, name in enumerate(names))


def dots_on_screen(dots: Dots) -> dict[str, Any]:
    """Data and layout of a dot plot; what is missing is a hollow mark at the left edge."""
    low, high = dots.ends
    data = [_dotted(dots, index, series, style) for index, (series, style) in enumerate(dots.drawn)]
    if dots.baseline is not None:
        name, value = dots.baseline
        line = {"color": LIGHT.baseline, "width": SCREEN.line, "dash": dashes(BASELINE_DASH, SCREEN.line)}
        ends = {"x": [value, value], "y": [-0.5, len(dots.places) - 0.5], "mode": "lines", "line": line}
        data.append({"type": "scatter", "name": plain(name), **ends, "hoverinfo": "skip"})
    if dots.shown_missing:
        data.append(_missing(dots, dots.shown_missing, low))
    x = axis_of(Axis(dots.x_title, range=(low, high)))
    y = axis_of(Axis("", _ticks(dots.places), range=(len(dots.places) - 0.5, -0.5)))
    return {"data": data, "layout": layout_of(dots.title) | {"xaxis": x, "yaxis": y}}


def _dotted(dots: Dots, index: int, series: Series, style: Style) -> dict[str, Any]:
    means = [dots.within(one.mean) for one in series.y]
    above = [0.0 if one.high is None else dots.within(one.high) - dots.within(one.mean) for one in series.y]
    below = [0.0 if one.low is None else dots.within(one.mean) - dots.within(one.low) for one in series.y]
    bars = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "color": style.colour}
    said = [
        lines_of([series.name, dots.places[round(place)], f"{dots.x_title}: {_between(one.mean, one.low, one.high)}"])
        for place, one in zip(series.x, series.y, strict=True)
    ]
    return {
        "type": "scatter",
        "name": plain(series.name),
        "x": means,
        "y": [dots.height(index, place) for place in series.x],
        "mode": "markers",
        "cliponaxis": False,
        "marker": {"symbol": style.symbol, "size": SCREEN.symbol + 1, "color": style.colour},
        "error_x": bars | {"thickness": SCREEN.line - 0.5, "width": 0},
        "text": said,
        "hovertemplate": "%{text}<extra></extra>",
    }


def _between(mean: float, low: float | None, high: float | None) -> str:
    return (
        f"{mean:.4g} (no interval)" if low is None or high is None else f"{mean:.4g} (95 % CI {low:.4g} to {high:.4g})"
    )


def _missing(dots: Dots, missing: Sequence[Missing], low: float) -> dict[str, Any]:
    mark = {"symbol": "x-thin", "size": SCREEN.symbol, "color": LIGHT.ink, "line": {"width": 1.5, "color": LIGHT.ink}}
    return {
        "type": "scatter",
        "x": [low] * len(missing),
        "y": [dots.at(one) for one in missing],
        "mode": "markers",
        "cliponaxis": False,
        "marker": mark,
        "text": [lines_of([one.series, dots.places[one.place], f"no value: {one.reason}"]) for one in missing],
        "hovertemplate": "%{text}<extra></extra>",
    }


def radar_on_screen(radar: Radar) -> dict[str, Any]:
    """Data and layout of a radar, drawn in the plane: circles at 0.25, 0.5, 0.75 and 1, spokes, polygons."""
    data = [
        {
            "type": "scatter",
            "name": plain(series.name),
            "x": [None if point is None else point[0] for point in radar.outline(series)],
            "y": [None if point is None else point[1] for point in radar.outline(series)],
            "mode": "lines+markers",
            "line": {"color": style.colour, "width": SCREEN.line, "dash": dashes(style.dash, SCREEN.line)},
            "marker": {"symbol": style.symbol, "size": SCREEN.symbol - 1, "color": style.colour},
            "text": _spoken(radar, series),
            "hovertemplate": "%{text}<extra></extra>",
        }
        for series, style in radar.drawn
    ]
    thin = {"color": LIGHT.baseline, "width": SCREEN.thin / 2}
    rings = [
        {"type": "circle", "x0": -r, "x1": r, "y0": -r, "y1": r, "line": thin, "layer": "below"}
        for r in (0.25, 0.5, 0.75, 1.0)
    ]
    rims = [radar.point(place, 1.0) for place in range(len(radar.places))]
    spokes = [{"type": "line", "x0": 0, "y0": 0, "x1": x, "y1": y, "line": thin, "layer": "below"} for x, y in rims]
    font = {"size": SMALLEST, "color": LIGHT.ink}
    names = [
        {"x": 1.08 * x, "y": 1.08 * y, "text": plain(name), "showarrow": False, "font": font}
        | {"xanchor": _side(x, "left", "right", "center"), "yanchor": _side(y, "bottom", "top", "middle")}
        for (x, y), name in zip(rims, radar.places, strict=True)
    ]
    scale = [
        {"x": 0.02, "y": r, "text": f"{r:g}", "showarrow": False, "xanchor": "left", "font": font} for r in (0.5, 1.0)
    ]
    hidden = {"visible": False, "fixedrange": True, "range": [-RIM, RIM]}
    axes = {"xaxis": hidden | {"range": [-1.75, 1.75]}, "yaxis": hidden | {"scaleanchor": "x"}}
    margins = {"l": 4, "r": 4, "t": 34 if radar.title else 4, "b": 4}
    layout = layout_of(radar.title) | axes | {"margin": margins, "shapes": [*rings, *spokes]}
    return {"data": data, "layout": layout | {"annotations": [*names, *scale]}}


def _spoken(radar: Radar, series: Series) -> list[str]:
    values = dict(zip(map(round, series.x), series.y, strict=True))
    names = [name.replace("\n", " ") for name in radar.places]
    said = [
        lines_of([series.name, f"{name}: {values[place].mean:.3g}" if place in values else name])
        for place, name in enumerate(names)
    ]
    return [*said, *said[:1]]


def _side(at: float, above: str, below: str, middle: str) -> str:
    return above if at > 0.15 else below if at < -0.15 else middle


def traces_on_screen(traces: Traces) -> dict[str, Any]:
    """Data and layout of traces: names on the left, the scale bar at the right, a cross where a trace was ended."""
    data = [_course(traces, index, trace) for index, trace in enumerate(traces.traces)]
    ended = [(index, trace) for index, trace in enumerate(traces.traces) if trace.is_ended and trace.x]
    if ended:
        cross = {"symbol": "x-thin", "size": 9, "color": LIGHT.ink, "line": {"width": 2, "color": LIGHT.ink}}
        points = {"x": [t.x[-1] for _, t in ended], "y": [traces.offset(i) + t.y[-1] for i, t in ended]}
        texts = [plain(f"{trace.name}: removed") for _, trace in ended]
        shown = {"text": texts, "hovertemplate": "%{text}<extra></extra>"}
        look = {"mode": "markers", "marker": cross, "cliponaxis": False}
        data.append({"type": "scatter", "name": "removed", **points, **look, **shown})
    height, label = traces.bar
    first, last = traces.ends
    room = 0.06 * (last - first) or 1.0
    at, foot = last + room / 2, traces.offset(len(traces.traces) - 1)
    bar = {
        "type": "line",
        "x0": at,
        "x1": at,
        "y0": foot,
        "y1": foot + height,
        "line": {"color": LIGHT.ink, "width": 3},
    }
    said = {"x": at, "y": foot - 0.3, "text": plain(label), "showarrow": False, "xanchor": "right", "yanchor": "top"}
    names = tuple((traces.offset(index), trace.name) for index, trace in enumerate(traces.traces))
    x = axis_of(Axis(traces.x_title, range=(first - room, last + room)))
    y = axis_of(Axis("", names, range=(foot - 4.5, 4.0)))
    axes = {"xaxis": x, "yaxis": y | {"ticks": "", "tickfont": {"size": SMALLEST}, "showline": False}}
    layout = with_marks(layout_of(traces.title) | axes, traces.spans, ())
    shapes, labels = layout.get("shapes", []), layout.get("annotations", [])
    font = {"size": SMALLEST, "color": LIGHT.ink}
    return {
        "data": data,
        "layout": layout | {"shapes": [*shapes, bar], "annotations": [*labels, said | {"font": font}]},
    }


def _course(traces: Traces, index: int, trace: Trace) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": [*trace.x],
        "y": [round(traces.offset(index) + value, 3) for value in trace.y],
        "mode": "lines",
        "line": {"color": trace.style.colour, "width": SCREEN.thin},
        "hovertemplate": f"{plain(trace.name)}<br>{plain(traces.x_title)}: %{{x}}<extra></extra>",
    }
