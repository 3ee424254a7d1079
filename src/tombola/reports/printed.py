"""Charts as files: PNG in the sizes of a printed figure, SVG also for pages without a script. Drawn by matplotlib.

The same description that `interactive` draws, with the same colours, dashes, symbols and fonts.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tombola.reports.chart import Chart
from tombola.reports.described import Figure
from tombola.reports.dots import Dots, Radar
from tombola.reports.grid import Grid
from tombola.reports.heatmap import Heatmap
from tombola.reports.nature import (
    BAND_OPACITY,
    BASELINE_DASH,
    FONTS,
    LIGHT,
    PRINT,
    PRINT_MILLIMETRES,
    RING,
    SCREEN,
    Sizes,
)
from tombola.reports.on_paper import draw_dots, draw_grid, draw_radar, draw_traces
from tombola.reports.paper_parts import dashed, draw_marks, frame, room_above, set_axis
from tombola.reports.traces import Traces

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Sheet

PRINT_DPI = 200
POINTS_PER_INCH = 72
MOST_WITHIN = 4
"""Entries of a legend that stands within the axes; a longer one would lie over lines."""


def png(figure: Figure, millimetres: tuple[float, float] = PRINT_MILLIMETRES) -> bytes:
    """The figure as a PNG file at 200 dpi.

    Args:
        figure: the description.
        millimetres: width and height; a figure over two columns of a page, if not said.

    Returns:
        The file's content.
    """
    return sheet([[figure]], millimetres)


def sheet(rows: Sequence[Sequence[Figure]], millimetres: tuple[float, float], notes: Sequence[str] = ()) -> bytes:
    """Several figures in one PNG file at 200 dpi, in rows from the top, all equally wide.

    Args:
        rows: the descriptions; a row that is shorter than others ends with room.
        millimetres: width and height of the whole.
        notes: lines below the figures.

    Returns:
        The file's content.
    """
    width, height = (length / 25.4 for length in millimetres)
    content = io.BytesIO()
    _drawn(rows, (width, height), PRINT, notes).savefig(content, format="png", dpi=PRINT_DPI)
    return content.getvalue()


def svg(figure: Figure, width: float, height: float) -> str:
    """The figure as an `<svg>` element that can stand in a page of this width, its text as large as a page's.

    Args:
        figure: the description.
        width: in pixels.
        height: in pixels.

    Returns:
        The element. It refers to nothing outside, and to nothing of another such element.
    """
    import matplotlib as mpl

    # A point of the drawing is a pixel of the page. Ids are hashes of their content and this salt.
    content = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"{width:g} {figure.title}"}):
        drawn = _drawn([[figure]], (width / POINTS_PER_INCH, height / POINTS_PER_INCH), SCREEN)
        drawn.savefig(content, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    element = content.getvalue()
    element = re.sub(r"<metadata>.*?</metadata>", "", element[element.index("<svg") :], flags=re.S)
    family = ", ".join(f"'{name}'" for name in FONTS)
    element = re.sub(r"font-family: [^;\"]+", f"font-family: {family}, sans-serif", element)
    used = set(re.findall(r"#([\w-]+)", element))
    return re.sub(r' id="([\w-]+)"', lambda found: found[0] if found[1] in used else "", element)


def _drawn(
    rows: Sequence[Sequence[Figure]], inches: tuple[float, float], sizes: Sizes, notes: Sequence[str] = ()
) -> Sheet:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Sheet

    with mpl.rc_context({"font.family": _fonts(), "text.parse_math": False, "text.color": LIGHT.ink}):
        drawn = Sheet(figsize=inches, dpi=PRINT_DPI, layout="constrained")
        FigureCanvasAgg(drawn)
        places = drawn.subplots(len(rows), max(map(len, rows)), squeeze=False)
        for row, shown in zip(places, rows, strict=True):
            for axes in row[len(shown) :]:  # of a row that is not full
                axes.set_axis_off()
            for axes, figure in zip(row, shown, strict=False):
                _draw(drawn, axes, figure, sizes)
        _share_legend(drawn, sizes, "upper" if notes else "lower")
        if notes:
            drawn.supxlabel("\n".join(notes), fontsize=sizes.small, x=0.01, ha="left", wrap=True)
        drawn.draw_without_rendering()  # lays out, with these settings and once
        drawn.set_layout_engine("none")
    return drawn


def _draw(drawn: Sheet, axes: Axes, figure: Figure, sizes: Sizes) -> None:
    match figure:
        case Heatmap():
            _draw_heatmap(drawn, axes, figure, sizes)
        case Grid():
            draw_grid(axes, figure, sizes)
        case Dots():
            draw_dots(axes, figure, sizes)
        case Radar():
            draw_radar(axes, figure, sizes)
        case Traces():
            draw_traces(axes, figure, sizes)
        case Chart():
            _draw_chart(axes, figure, sizes)
    if figure.title:
        named = figure.spans if isinstance(figure, Chart | Traces) else ()
        axes.set_title(figure.title, fontsize=sizes.small, pad=room_above(named, sizes))


def _share_legend(drawn: Sheet, sizes: Sizes, side: str) -> None:
    """One legend above or below several figures that all have the same one."""
    found = [axes.get_legend_handles_labels() for axes in drawn.axes]
    handles, labels = found[0]
    if len(found) < 2 or not labels or any(other != labels for _, other in found):
        return
    for axes in drawn.axes:
        if (legend := axes.get_legend()) is not None:
            legend.remove()
    look: dict[str, Any] = {"fontsize": sizes.small, "frameon": False, "labelcolor": LIGHT.ink, "ncols": 4}
    drawn.legend(handles, labels, **look | {"loc": f"outside {side} center"})


@functools.cache
def _fonts() -> list[str]:
    """The house's fonts that this machine has, in their order; asked for others matplotlib warns."""
    from matplotlib.font_manager import fontManager

    there = set(fontManager.get_font_names())
    return [name for name in FONTS if name in there]


def _draw_chart(axes: Axes, chart: Chart, sizes: Sizes) -> None:
    for series, style in chart.drawn:
        means = [estimate.mean for estimate in series.y]
        look: dict[str, Any] = {"color": style.colour, "linewidth": sizes.line, "linestyle": dashed(style.dash)}
        if chart.has_symbols(series):
            look |= {"marker": style.marker, "markersize": sizes.symbol}
        if chart.steps:
            look["drawstyle"] = "steps-mid"
        axes.plot(series.x, means, label=series.name, **look)
        band = chart.band(series)
        if band is not None:
            axes.fill_between(*band, color=style.colour, alpha=BAND_OPACITY, linewidth=0)
    if chart.baseline is not None:
        name, value = chart.baseline
        dash = dashed(BASELINE_DASH)
        axes.plot(chart.ends, [value] * 2, color=LIGHT.baseline, linestyle=dash, linewidth=sizes.line, label=name)
    if chart.mark is not None:
        ring: dict[str, Any] = {"marker": "o", "markersize": RING * sizes.symbol, "markerfacecolor": "none"}
        ring |= {"linestyle": "none", "markeredgecolor": LIGHT.ink, "markeredgewidth": sizes.line}
        axes.plot([chart.mark.x], [chart.mark.y], label=chart.mark.label, **ring)
    set_axis(axes, "x", chart.x_axis, sizes)
    set_axis(axes, "y", chart.y_axis, sizes)
    frame(axes, sizes)
    draw_marks(axes, chart.spans, chart.moments, sizes)
    if entries := len(axes.get_legend_handles_labels()[0]):
        beside: dict[str, Any] = (
            {"loc": "upper left", "bbox_to_anchor": (1, 1)} if chart.spans or entries > MOST_WITHIN else {}
        )
        axes.legend(fontsize=sizes.small, frameon=False, labelcolor=LIGHT.ink, **beside)


def _draw_heatmap(figure: Sheet, axes: Axes, heatmap: Heatmap, sizes: Sizes) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("house", [LIGHT.low, LIGHT.high])
    image = axes.imshow(heatmap.values, cmap=colours, vmin=0, vmax=heatmap.highest)
    axes.set_aspect("auto" if heatmap.is_named else "equal")
    bar = figure.colorbar(image, ax=axes, orientation="horizontal", shrink=0.6)
    bar.set_label(heatmap.unit, fontsize=sizes.text)
    bar.ax.tick_params(labelsize=sizes.small, width=sizes.thin)
    bar.outline.set_visible(False)
    if not heatmap.is_named:
        axes.set_axis_off()
        return
    axes.set_xticks(range(len(heatmap.columns)), heatmap.columns)
    axes.set_yticks(range(len(heatmap.rows)), heatmap.rows)
    axes.set_xlabel(heatmap.x_title, fontsize=sizes.text)
    frame(axes, sizes)
