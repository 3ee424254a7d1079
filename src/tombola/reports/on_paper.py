"""Grids, dot plots, radars and traces drawn by matplotlib; `printed` has charts and maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tombola.reports.axes import Axis
from tombola.reports.dots import Dots, Radar
from tombola.reports.grid import Grid
from tombola.reports.nature import BASELINE_DASH, LIGHT, Sizes
from tombola.reports.paper_parts import dashed, draw_marks, frame, set_axis
from tombola.reports.tables import MISSING
from tombola.reports.traces import Traces

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_grid(axes: Axes, grid: Grid, sizes: Sizes) -> None:
    """Cells by colour, their texts, empty ones hatched."""
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    colours = LinearSegmentedColormap.from_list("around", [LIGHT.worse, LIGHT.even, LIGHT.better])
    strengths = [[grid.strength(cell) for cell in row] for row in grid.cells]
    shown = np.array([[np.nan if value is None else value for value in row] for row in strengths], dtype=float)
    axes.imshow(shown, cmap=colours, vmin=-1, vmax=1, aspect="auto")
    for row, cells in enumerate(grid.cells):
        for column, cell in enumerate(cells):
            if cell.value is None:
                hatch: dict[str, Any] = {"fill": False, "hatch": "////", "linewidth": 0, "edgecolor": LIGHT.baseline}
                axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **hatch))
            look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": sizes.small, "color": LIGHT.ink}
            if cell.value is None:
                look["bbox"] = {"facecolor": LIGHT.paper, "linewidth": 0, "pad": 2}
            axes.text(column, row, MISSING if cell.value is None else cell.text, **look)
    axes.set_xticks(range(len(grid.columns)), grid.columns)
    axes.set_yticks(range(len(grid.rows)), grid.rows)
    axes.set_xlabel(grid.x_title, fontsize=sizes.text, color=LIGHT.ink)
    frame(axes, sizes)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)


def draw_dots(axes: Axes, dots: Dots, sizes: Sizes) -> None:
    """Dots with their intervals, the reference across, a cross at the left edge for what is missing."""
    low, high = dots.ends
    for index, (series, style) in enumerate(dots.drawn):
        heights = [dots.height(index, place) for place in series.x]
        for height, one in zip(heights, series.y, strict=True):
            if one.low is not None and one.high is not None:
                ends = [dots.within(one.low), dots.within(one.high)]
                axes.plot(ends, [height] * 2, color=style.colour, linewidth=sizes.line)
        look: dict[str, Any] = {"marker": style.marker, "markersize": sizes.symbol + 1, "linestyle": "none"}
        means = [dots.within(one.mean) for one in series.y]
        look["clip_on"] = not means  # without points there would be no end to what the layout makes room for
        axes.plot(means, heights, color=style.colour, label=series.name, **look)
    if dots.baseline is not None:
        name, value = dots.baseline
        axes.axvline(value, color=LIGHT.baseline, linestyle=dashed(BASELINE_DASH), linewidth=sizes.line, label=name)
    if dots.shown_missing:
        look = {"marker": "x", "markersize": sizes.symbol, "linestyle": "none", "clip_on": False, "label": "no value"}
        heights = [dots.at(missing) for missing in dots.shown_missing]
        axes.plot([low] * len(heights), heights, color=LIGHT.ink, **look)
    set_axis(axes, "x", Axis(dots.x_title, range=(low, high)), sizes)
    axes.set_yticks(range(len(dots.places)), [name.replace("\n", " ") for name in dots.places])
    axes.set_ylim(len(dots.places) - 0.5, -0.5)
    for place in range(1, len(dots.places)):
        axes.axhline(place - 0.5, color=LIGHT.span, linewidth=sizes.line, zorder=0)
    frame(axes, sizes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=sizes.small, frameon=False, labelcolor=LIGHT.ink, loc="upper left", bbox_to_anchor=(1, 1))


def draw_radar(axes: Axes, radar: Radar, sizes: Sizes) -> None:
    """Circles at 0.25, 0.5, 0.75 and 1, spokes with their names, polygons."""
    from matplotlib.patches import Circle

    thin: dict[str, Any] = {"color": LIGHT.baseline, "linewidth": sizes.thin / 2}
    for radius in (0.25, 0.5, 0.75, 1.0):
        axes.add_patch(Circle((0, 0), radius, fill=False, **thin))
    for place, name in enumerate(radar.places):
        x, y = radar.point(place, 1.0)
        axes.plot([0, x], [0, y], **thin)
        sides: dict[str, Any] = {"ha": _side(x, "left", "right", "center"), "va": _side(y, "bottom", "top", "center")}
        axes.text(1.06 * x, 1.06 * y, name, fontsize=sizes.small, **sides)
    for radius in (0.5, 1.0):
        axes.text(0.02, radius, f"{radius:g}", fontsize=sizes.small - 1, color=LIGHT.baseline)
    for series, style in radar.drawn:
        points = [point or (float("nan"), float("nan")) for point in radar.outline(series)]
        look: dict[str, Any] = {"linestyle": dashed(style.dash), "marker": style.marker, "markersize": sizes.symbol}
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.plot(xs, ys, color=style.colour, linewidth=sizes.line, label=series.name, **look)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_xlim(-1.5, 1.5)
    axes.set_ylim(-1.3, 1.3)
    axes.legend(fontsize=sizes.small, frameon=False, labelcolor=LIGHT.ink, loc="upper center", bbox_to_anchor=(0.5, 0))


def _side(at: float, above: str, below: str, middle: str) -> str:
    return above if at > 0.15 else below if at < -0.15 else middle


def draw_traces(axes: Axes, traces: Traces, sizes: Sizes) -> None:
    """Traces below each other, a cross where one was ended, the scale bar at the right."""
    for index, trace in enumerate(traces.traces):
        heights = [traces.offset(index) + value for value in trace.y]
        axes.plot(trace.x, heights, color=trace.style.colour, linewidth=sizes.thin)
        if trace.is_ended and trace.x:
            cross: dict[str, Any] = {"marker": "x", "markersize": sizes.symbol + 1, "clip_on": False}
            axes.plot([trace.x[-1]], heights[-1:], color=LIGHT.ink, **cross)
    first, last = traces.ends
    room = 0.06 * (last - first) or 1.0
    foot, (height, label) = traces.offset(len(traces.traces) - 1), traces.bar
    axes.plot([last + room / 2] * 2, [foot, foot + height], color=LIGHT.ink, linewidth=2 * sizes.line)
    axes.text(last + room / 2, foot - 0.5, label, fontsize=sizes.small, ha="right", va="top", color=LIGHT.ink)
    set_axis(axes, "x", Axis(traces.x_title, range=(first - room / 3, last + room)), sizes)
    axes.set_yticks([traces.offset(i) for i in range(len(traces.traces))], [trace.name for trace in traces.traces])
    axes.set_ylim(foot - 4.5, 4.0)
    frame(axes, sizes)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelsize=sizes.small - 1)
    draw_marks(axes, traces.spans, (), sizes)
