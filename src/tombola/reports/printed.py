"""Charts as files: PNG in the sizes of a printed figure, SVG also for pages without a script. Drawn by matplotlib.

The same description that `interactive` draws, with the same colours, dashes, symbols and fonts.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tombola.reports.axes import Axis
from tombola.reports.chart import Chart
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRINT_DPI = 200
POINTS_PER_INCH = 72


def png(figure: Chart | Heatmap) -> bytes:
    """The figure as a PNG file, 183 mm wide at 200 dpi.

    Args:
        figure: the description.

    Returns:
        The file's content.
    """
    width, height = (millimetres / 25.4 for millimetres in PRINT_MILLIMETRES)
    content = io.BytesIO()
    _drawn(figure, (width, height), PRINT).savefig(content, format="png", dpi=PRINT_DPI)
    return content.getvalue()


def svg(figure: Chart | Heatmap, width: float, height: float) -> str:
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
        drawn = _drawn(figure, (width / POINTS_PER_INCH, height / POINTS_PER_INCH), SCREEN)
        drawn.savefig(content, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    element = content.getvalue()
    element = re.sub(r"<metadata>.*?</metadata>", "", element[element.index("<svg") :], flags=re.S)
    family = ", ".join(f"'{name}'" for name in FONTS)
    element = re.sub(r"font-family: [^;\"]+", f"font-family: {family}, sans-serif", element)
    used = set(re.findall(r"#([\w-]+)", element))
    return re.sub(r' id="([\w-]+)"', lambda found: found[0] if found[1] in used else "", element)


def _drawn(figure: Chart | Heatmap, inches: tuple[float, float], sizes: Sizes) -> Figure:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.family": _fonts(), "text.parse_math": False, "text.color": LIGHT.ink}):
        drawn = Figure(figsize=inches, layout="constrained")
        FigureCanvasAgg(drawn)
        axes = drawn.add_subplot()
        if isinstance(figure, Heatmap):
            _draw_heatmap(drawn, axes, figure, sizes)
        else:
            _draw_chart(axes, figure, sizes)
        if figure.title:
            axes.set_title(figure.title, fontsize=sizes.small)
        drawn.canvas.draw()  # lays out with these settings
    return drawn


@functools.cache
def _fonts() -> list[str]:
    """The house's fonts that this machine has, in their order; asked for others matplotlib warns."""
    from matplotlib.font_manager import fontManager

    there = set(fontManager.get_font_names())
    return [name for name in FONTS if name in there]


def _draw_chart(axes: Axes, chart: Chart, sizes: Sizes) -> None:
    for series, style in chart.drawn:
        means = [estimate.mean for estimate in series.y]
        look: dict[str, Any] = {"color": style.colour, "linewidth": sizes.line, "linestyle": _dash(style.dash)}
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
        dash = _dash(BASELINE_DASH)
        axes.plot(chart.ends, [value] * 2, color=LIGHT.baseline, linestyle=dash, linewidth=sizes.line, label=name)
    if chart.mark is not None:
        ring: dict[str, Any] = {"marker": "o", "markersize": RING * sizes.symbol, "markerfacecolor": "none"}
        ring |= {"linestyle": "none", "markeredgecolor": LIGHT.ink, "markeredgewidth": sizes.line}
        axes.plot([chart.mark.x], [chart.mark.y], label=chart.mark.label, **ring)
    _set_axis(axes, "x", chart.x_axis, sizes)
    _set_axis(axes, "y", chart.y_axis, sizes)
    _frame(axes, sizes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=sizes.small, frameon=False, labelcolor=LIGHT.ink)


def _draw_heatmap(figure: Figure, axes: Axes, heatmap: Heatmap, sizes: Sizes) -> None:
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
    _frame(axes, sizes)


def _set_axis(axes: Axes, which: str, axis: Axis, sizes: Sizes) -> None:
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


def _frame(axes: Axes, sizes: Sizes) -> None:
    axes.tick_params(labelsize=sizes.small, width=sizes.thin, length=2.5, color=LIGHT.ink, labelcolor=LIGHT.ink)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(linewidth=sizes.thin, color=LIGHT.ink)


def _dash(dash: tuple[float, ...]) -> Any:
    """In widths of the line, as matplotlib has it."""
    return (0, dash) if dash else "solid"
