"""Where a ticket's weights lie: by layer, by pixel of the input, by size. Made from the rows alone."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.reports.chart import Chart, Series
from tombola.reports.heatmap import Heatmap
from tombola.reports.intervals import Estimate
from tombola.reports.nature import STYLES
from tombola.runs.rows import Row, rows_of
from tombola.studies.lottery.curves import layer_chart
from tombola.studies.lottery.over_replicates import Summary

MOST_HISTOGRAMS = 4
"""Layers whose weights are shown, spread from the first to the last."""


def layer_figure(rows: Sequence[Row]) -> Chart | Heatmap:
    """Density of every layer by round: lines, or colours where there are more layers than colours to tell them by."""
    chart = layer_chart(rows)
    if len(chart.series) <= len(STYLES):
        return chart
    rounds = sorted({x for series in chart.series for x in series.x})
    kept = [dict(zip(series.x, (y.mean for y in series.y), strict=True)) for series in chart.series]
    return Heatmap(
        [[layer.get(index, 0.0) for index in rounds] for layer in kept],
        chart.y_title,
        x_title=chart.x_title,
        columns=[f"{index:g}" for index in rounds],
        rows=[series.name for series in chart.series],
        top=100.0,
    )


def pixel_maps(rows: Sequence[Row], chosen: Sequence[Summary]) -> list[Heatmap]:
    """Kept connections of every input pixel to the first layer, mean over replicates, one map for each round.

    Examples that are no images are maps, too: of their last two axes, or of one line where they are vectors.
    None where the first layer does not see every pixel, or the run did not count them.
    """
    maps = []
    for summary in chosen:
        found = rows_of(rows, kind="connections", round=summary.round)
        if not found:
            continue
        height, width = [1, 1, *found[0]["shape"]][-2:]
        pixels = height * width
        # Axes before the last two are added up: a pixel's connections are those of all its channels.
        means = [sum(sum(row["counts"][i::pixels]) for row in found) / len(found) for i in range(pixels)]
        lines = [means[y * width : (y + 1) * width] for y in range(height)]
        maps.append(Heatmap(lines, "connections kept", title=f"{summary.density:.1%} of the weights"))
    return maps


def weight_histograms(rows: Sequence[Row], index: int) -> list[Chart]:
    """Kept weights of one ticket before and after training, of a few layers; the first replicate of a round."""
    found = rows_of(rows, kind="histogram", replicate=min(row["replicate"] for row in rows), round=index)
    if not found:
        return []
    chosen = sorted({round(i * (len(found) - 1) / (MOST_HISTOGRAMS - 1)) for i in range(MOST_HISTOGRAMS)})
    return [_histogram(found[i]) for i in chosen]


def _histogram(row: Row) -> Chart:
    """Counts in equal bins over [-limit, limit]."""
    series = []
    for style, (name, counts) in enumerate((("before training", row["before"]), ("after", row["after"]))):
        width = 2 * row["limit"] / len(counts)
        middles = [-row["limit"] + width * (i + 0.5) for i in range(len(counts))]
        series.append(Series(name, middles, [Estimate(count, None, None, None, 1) for count in counts], style))
    return Chart("Weight", "Count", series, steps=True, title=row["layer"].removesuffix(".weight"))
