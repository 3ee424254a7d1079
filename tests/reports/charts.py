"""Charts that several modules draw."""

from __future__ import annotations

from tombola.reports import nature
from tombola.reports.chart import Chart, Mark, Series
from tombola.reports.heatmap import Heatmap
from tombola.reports.intervals import estimate


def chart(replicates: int = 3, lines: int = 2) -> Chart:
    """Accuracy against density, of some lines, with a baseline and a winning round."""
    x = [100.0, 50.0, 20.0, 4.0]
    names = ["ticket", "random mask", *(f"line {index}" for index in range(2, lines))]
    series = [
        Series(name, x, [estimate([90.0 - place + i + r for r in range(replicates)]) for i in range(4)], place)
        for place, name in enumerate(names[:lines])
    ]
    mark = Mark("winning round, 20.0% of the weights", 20.0, series[0].y[2].mean)
    return Chart(nature.DENSITY_AXIS, "Test accuracy (%)", series, ("dense", 91.0), over_density=True, mark=mark)


def pixels() -> Heatmap:
    """A small image's pixels."""
    return Heatmap([[0.0, 1.0, 2.0], [3.0, 4.0, 8.0]], "connections kept", title="4.0% of the weights")


def layers() -> Heatmap:
    """Named rows and columns."""
    return Heatmap(
        [[100.0, 50.0], [100.0, 20.0]], "kept (%)", x_title="Round", columns=["0", "1"], rows=["fc1", "fc2"], top=100.0
    )
