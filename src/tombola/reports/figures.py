"""Figures on a page: drawn by a script that knows light and dark, or standing still where a page carries no script.

Each has a text alternative, a legend that wraps, a caption and, folded, its numbers.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence

from tombola.reports.chart import Chart
from tombola.reports.described import Figure, alternative, numbers
from tombola.reports.dots import Dots, Radar
from tombola.reports.grid import Grid
from tombola.reports.heatmap import Heatmap
from tombola.reports.html_tables import table_html
from tombola.reports.interactive import plotly_figure
from tombola.reports.nature import BASELINE_DASH, SCREEN, in_the_dark
from tombola.reports.printed import svg
from tombola.reports.screen_parts import dashes
from tombola.reports.traces import Traces

WIDE, NARROW = (860.0, 420.0), (358.0, 300.0)
"""Pixels of a still figure on a wide page and on a telephone."""
PATHS = {
    "circle": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z",
    "square": "M-3.5-3.5h7v7h-7Z",
    "diamond": "M0-5 5 0 0 5-5 0Z",
    "triangle-up": "M0-4.5 4.5 3.5h-9Z",
    "triangle-down": "M0 4.5 4.5-3.5h-9Z",
    "cross": "M-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3Z",
    "x": "M-4-2-2-4 0-2 2-4 4-2 2 0 4 2 2 4 0 2-2 4-4 2-2 0Z",
    "pentagon": "M0-4.5 4.3-1.4 2.6 3.6h-5.2L-4.3-1.4Z",
    "star": "M0-5 1.5-1.6 5-1.5 2.2.7 3.1 4.2 0 2.2-3.1 4.2-2.2.7-5-1.5-1.5-1.6Z",
    "hexagon": "M0-4.5 3.9-2.2v4.5L0 4.5-3.9 2.3v-4.5Z",
}
"""The symbols of a legend."""


def figure_html(figure: Figure | Sequence[Figure], caption: str, *, wide: bool = False) -> str:
    """A figure, or several small ones side by side, as wide as the page's column; the page's script draws it.

    Args:
        figure: one description, or several that share a caption and a legend.
        caption: what it shows and of what, below it.
        wide: whether each of several needs half of the column, for the titles of its axes.

    Returns:
        HTML; all text is escaped.
    """
    shown = [*figure] if isinstance(figure, Sequence) else [figure]
    plots = "".join(_plot(one) for one in shown)
    wide = wide or any(isinstance(one, Radar | Grid | Dots) for one in shown)
    drawn = plots if len(shown) == 1 else f"<div class='several{' wide' if wide else ''}'>{plots}</div>"
    save = "<button type='button' class='save'>Save as SVG</button>"
    return f"<figure>{drawn}{_below(shown, caption, save)}</figure>"


def still_html(figure: Chart, caption: str) -> str:
    """A figure for a page without plotly.js: the same look, and its numbers below instead of under the pointer.

    Args:
        figure: the description.
        caption: what it shows and of what, below it.

    Returns:
        HTML; all text is escaped.
    """
    said = html.escape(alternative(figure))
    drawn = "".join(
        f"<div class='still {name}' role='img' aria-label='{said}'>{_themed(svg(figure, *size))}</div>"
        for name, size in (("wide", WIDE), ("narrow", NARROW))
    )
    return f"<figure>{drawn}{_below([figure], caption)}</figure>"


def _plot(figure: Figure) -> str:
    """The place of one drawing, and what the script draws there. No `</script>` can end it early."""
    kind = "map" if isinstance(figure, Heatmap) and not figure.is_named else "chart"
    kind = "radar" if isinstance(figure, Radar) else kind
    content = json.dumps(plotly_figure(figure), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return (
        f"<div class='plot {kind}'{_height(figure)} role='img' aria-label='{html.escape(alternative(figure))}'></div>"
        f"<script type='application/json'>{content}</script>"
    )


def _height(figure: Figure) -> str:
    """As an attribute, of figures that are as high as they have rows; the theme knows that of all others."""
    match figure:
        case Grid():
            rem = 6.0 + 3.2 * len(figure.rows) + 1.1 * figure.title.count("\n")
        case Dots():
            rem = 5.5 + len(figure.places) * (1.4 + 0.8 * len(figure.drawn))
        case Traces():
            rem = 12.0 + 1.3 * len(figure.traces)
        case _:
            return ""
    return f" style='height:{rem:g}rem'"


def _below(shown: Sequence[Figure], caption: str, save: str = "") -> str:
    """Legend, caption, and folded what a keyboard or a screen reader wants to have of the figure."""
    first = shown[0]
    if isinstance(first, Chart) and first.left_out:
        caption += f" Not drawn, because colours would repeat: {', '.join(first.left_out)}."
    legend = _legend(first) if isinstance(first, Chart | Dots | Radar) else ""
    table = next((found for one in shown if (found := numbers(one)) is not None), None) if _has_table(shown) else None
    listed = "" if table is None else table_html(table, "Numbers of this figure", grouped=True)
    held = " and ".join(name for name, part in (("numbers", listed), ("file", save)) if part).capitalize()
    fold = f"<details class='aside'><summary>{held}</summary>{save}{listed}</details>" if held else ""
    return f"{legend}<figcaption>{html.escape(caption)}</figcaption>{fold}"


def _has_table(shown: Sequence[Figure]) -> bool:
    """Whether the numbers of one of them are those of all: it stands alone, or beside others that show the same."""
    return len(shown) == 1 or any(isinstance(one, Radar) for one in shown)


def _legend(chart: Chart | Dots | Radar) -> str:
    """What each colour, dash and symbol is."""
    entries = [
        (f"var(--series-{style.index})", dashes(style.dash, SCREEN.line), PATHS[style.symbol], series.name)
        for series, style in chart.drawn
    ]
    if chart.baseline is not None:
        entries.append(("var(--baseline)", dashes(BASELINE_DASH, SCREEN.line), "", chart.baseline[0]))
    steps = isinstance(chart, Chart) and chart.steps
    items = "".join(
        f"<li>{_swatch(colour, dash, '' if steps else path)}{html.escape(name)}</li>"
        for colour, dash, path, name in entries
    )
    if isinstance(chart, Chart) and chart.mark is not None:
        ring = "<circle r='6.5' fill='none' stroke='currentColor' stroke-width='2'/>"
        items += f"<li>{_sample(ring)}{html.escape(chart.mark.label)}</li>"
    return f"<ul class='legend'>{items}</ul>"


def _swatch(colour: str, dash: str, path: str) -> str:
    dashed = "" if dash == "solid" else f" stroke-dasharray='{dash.replace('px', '')}'"
    line = f"<path d='M-17 0h34' style='stroke:{colour}' stroke-width='2'{dashed}/>"
    symbol = f"<path d='{path}' style='fill:{colour}'/>" if path else ""
    return _sample(line + symbol)


def _sample(content: str) -> str:
    return f"<svg class='sample' viewBox='-18 -8 36 16' width='36' height='16' aria-hidden='true'>{content}</svg>"


def _themed(element: str) -> str:
    """A still drawing whose colours are the page's, which knows whether it is dark."""
    for number, name in enumerate(in_the_dark()):
        if name.startswith("#"):
            element = element.replace(name.lower(), f"var(--figure-{number})")
    return element
