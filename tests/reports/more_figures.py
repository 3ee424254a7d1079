"""Grids, dots, radars and traces that several modules draw."""

from __future__ import annotations

import math

from tombola.reports.chart import Chart, Moment, Series, Span
from tombola.reports.dots import Dots, Missing, Radar
from tombola.reports.grid import Cell, Grid
from tombola.reports.intervals import Estimate, estimate
from tombola.reports.traces import Trace, Traces

HALVES = [Span(0.0, 50.0, "names"), Span(50.0, 100.0, "verse")]
NAMES = ("performance", "kept of\nthe function", "recovery")


def grid() -> Grid:
    """Two strategies at three levels, one without a value."""
    values = [[3.1, 3.4, 4.0], [2.8, None, 3.0]]
    cells = [
        [Cell(None, reason="it learned nothing") if value is None else Cell(value, f"{value}\n±0.1") for value in row]
        for row in values
    ]
    return Grid(
        cells, ["entropy", "random"], ["10%", "30%", "50%"], "Loss (nats)", "Heads removed", ("dense", 3.0), False
    )


def dots() -> Dots:
    """Three places, two series, of which one lacks a place."""
    series = [
        Series("entropy", [0.0, 1.0, 2.0], [estimate([0.1 * i, 0.1 * i + 0.2]) for i in range(3)], 0),
        Series("random", [0.0, 2.0], [estimate([0.5]), estimate([0.6, 0.7])], 1),
    ]
    return Dots("Recovery", NAMES, series, [Missing("random", 1, "nothing was learned")], ("dense", 0.4))


def radar() -> Radar:
    """A whole polygon, one that is open at a spoke, and one that reaches beyond."""

    def of(name: str, values: dict[int, float], style: int) -> Series:
        return Series(name, [*map(float, values)], [Estimate(v, None, None, None, 1) for v in values.values()], style)

    return Radar(NAMES, [of("dense", {0: 0.5, 1: 1.0, 2: 0.7}, 5), of("a", {0: 0.2, 2: 0.9}, 0), of("b", {0: 1.4}, 1)])


def traces() -> Traces:
    """Three heads, one of which is removed half-way."""
    x = [float(step) for step in range(100)]
    y = [math.sin(step / 5) for step in x]
    heads = [Trace("layer 0, head 0", x, y), Trace("layer 0, head 1", x[:50], y[:50], is_ended=True)]
    return Traces("Step", [*heads, Trace("layer 1, head 0", x, y, group=1)], (2.0, "2 SD"), HALVES)


def phases() -> Chart:
    """A line over phases, with a moment."""
    line = Series("verse", [0.0, 50.0, 100.0], [estimate([3.0, 3.1]), estimate([3.5, 3.6]), estimate([3.2, 3.4])], 0)
    return Chart("Step", "Loss", [line], spans=HALVES, moments=[Moment(0.0, "pruned")])
