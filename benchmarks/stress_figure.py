"""The figure of the published stress page: strategies and levels against the dense model, by protocol."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tombola.reports.intervals import Estimate as Interval
from tombola.reports.nature import BAND_OPACITY, BASELINE_DASH, LIGHT, PRINT, STYLES
from tombola.reports.paper_parts import dashed, frame
from tombola.reports.printed import PRINT_DPI
from tombola.studies.stress.outcome.groups import RANDOM
from tombola.studies.stress.outcome.result import Stress
from tombola.studies.stress.shown.comparisons import STYLES as STYLE_OF
from tombola.studies.stress.shown.places import percents

Look = dict[str, Any]
MEASURES = {
    "performance_nats": "Loss after the last phase,\nminus dense (nats a token)",
    "probe_nats": "Probe loss after the last cycle,\nminus dense (nats a token)",
}
MILLIMETRES = (183.0, 112.0)
DODGE = 0.7
"""Of the distance of two levels, over which the strategies of one spread."""


def figure(results: Sequence[Stress]) -> bytes:
    """A PNG file: protocols from the left, measures from the top; dots with 95 % intervals, random as a band."""
    content = io.BytesIO()
    with mpl.rc_context({"font.family": "sans-serif", "text.parse_math": False, "text.color": LIGHT.ink}):
        drawn = Figure(figsize=(MILLIMETRES[0] / 25.4, MILLIMETRES[1] / 25.4), dpi=PRINT_DPI, layout="constrained")
        FigureCanvasAgg(drawn)
        places = drawn.subplots(len(MEASURES), len(results), squeeze=False, sharex="col", sharey="row")
        for row, (metric, title) in zip(places, MEASURES.items(), strict=True):
            for axes, result in zip(row, results, strict=True):
                _panel(axes, result, metric)
            row[0].set_ylabel(title, fontsize=PRINT.text)
        for axes, result in zip(places[0], results, strict=True):
            axes.set_title(result.config.protocol, fontsize=PRINT.text)
        for axes in places[-1]:
            axes.set_xlabel("Heads removed", fontsize=PRINT.text)
        legends = [axes.get_legend_handles_labels() for axes in places.flat]
        entries = {name: line for lines, names in legends for line, name in zip(lines, names, strict=True)}
        look: Look = {"fontsize": PRINT.small, "frameon": False, "ncols": len(entries), "labelcolor": LIGHT.ink}
        drawn.legend([*entries.values()], [*entries], loc="outside upper center", **look)
        drawn.savefig(content, format="png", dpi=PRINT_DPI)
    return content.getvalue()


def _panel(axes: Axes, result: Stress, metric: str) -> None:
    names = [name for name in result.strategies if name != RANDOM]
    for index, name in enumerate(names):
        offset = DODGE * ((index + 0.5) / len(names) - 0.5)
        _intervals(axes, name, offset, _against_dense(result, name, metric))
    if RANDOM in result.strategies:
        _band(axes, _against_dense(result, RANDOM, metric))
    dash = dashed(BASELINE_DASH)
    axes.axhline(0.0, color=LIGHT.baseline, linestyle=dash, linewidth=PRINT.line, label="dense", zorder=1)
    axes.set_xticks(range(len(result.levels)), percents(result.levels))
    frame(axes, PRINT)


def _against_dense(result: Stress, strategy: str, metric: str) -> list[tuple[int, Interval]]:
    """Paired by seed, by the number of the level; without those that have no value."""
    groups = [result.group(result.models[0], strategy, level) for level in result.levels]
    found = [None if group is None else group.minus_dense[metric].plain for group in groups]
    return [(level, one) for level, one in enumerate(found) if one is not None]


def _intervals(axes: Axes, name: str, offset: float, found: Sequence[tuple[int, Interval]]) -> None:
    style = STYLES[STYLE_OF[name]]
    for level, one in found:
        if one.low is not None and one.high is not None:
            axes.plot([level + offset] * 2, [one.low, one.high], color=style.colour, linewidth=PRINT.line, zorder=2)
    look: Look = {"marker": style.marker, "markersize": PRINT.symbol, "linestyle": "none", "zorder": 3}
    look |= {"color": style.colour, "label": name.replace("_", " ")}
    axes.plot([level + offset for level, _ in found], [one.mean for _, one in found], **look)


def _band(axes: Axes, found: Sequence[tuple[int, Interval]]) -> None:
    """A box in each level: its mean over seeds, and their interval."""
    colour, label = STYLES[STYLE_OF[RANDOM]].colour, "random (band: 95 % interval)"
    for level, one in found:
        ends = [level - DODGE / 2, level + DODGE / 2]
        if one.low is not None and one.high is not None:
            axes.fill_between(ends, one.low, one.high, color=colour, alpha=BAND_OPACITY, linewidth=0, zorder=0)
        axes.plot(ends, [one.mean] * 2, color=colour, linewidth=PRINT.line, label=label, zorder=1)
        label = "_"
