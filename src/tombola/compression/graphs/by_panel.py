"""A graph for a panel of examples: each nonzero is a few multiply-adds for all of them, and nothing is copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tombola.compression.compiled import Operation, layer_steps, width_of
from tombola.compression.graphs.lowered import Lowered, PackedGraph
from tombola.compression.graphs.nodes import Dense, Pool, Shape, Shortcut
from tombola.compression.graphs.places import borders, flattened
from tombola.compression.plans import Choice
from tombola.kernels.pools import PoolKind
from tombola.kernels.program import Place, Where
from tombola.kernels.steps import from_panel, to_panel
from tombola.kernels.window_steps import after, cleared, cleared_border, panel_pool
from tombola.kernels.windows import Panel, Window

COPY = Window((1, 1))


class Panels(Lowered[Panel]):
    """Up to a panel of examples."""

    def __init__(self, weights: PackedGraph, choices: Sequence[Choice], rows: int, bare: bool = False) -> None:
        self.rows, self.width = rows, width_of(rows)
        super().__init__(weights, choices, bare)

    def laid_out(self) -> list[Panel]:
        wanted = borders(self.graph)
        return [panel_of(shape, border, self.width) for shape, border in zip(self.graph.shapes(), wanted, strict=True)]

    def in_place(self) -> dict[int, int]:
        return {value: own for value, own in flattened(self.graph).items() if not self.layouts[own].border}

    def writes_output(self) -> bool:
        return False

    def output(self) -> Where:
        return Where(Place.OUTPUT)

    def begin(self) -> None:
        own, place = self.layouts[0], self.places[0]
        flat = place if not own.border else self.scratch(_flat(own).size)
        self.steps.append(to_panel(self.rows, self.graph.inputs, Where(Place.INPUT), flat, self.width))
        if own.border:
            self.steps += self._copied(COPY, _flat(own), own, flat, place)
            self.steps += cleared_border(own, place)

    def end(self) -> None:
        own, place = self.layouts[-1], self.places[-1]
        if own.border:
            flat = self.scratch(_flat(own).size)
            self.steps += self._copied(COPY, own, _flat(own), place, flat)
            place = flat
        self.steps.append(from_panel(self.rows, self.graph.outputs, place, self.width, self.output()))

    def _copied(self, window: Window, own: Panel, result: Panel, x: Where, y: Where) -> list[Operation]:
        return [*panel_pool(PoolKind.MAX, window, own, result, x, y, self.lanes)]

    def dense(self, value: int, node: Dense, x: Where, y: Where) -> Sequence[Operation]:
        number = self.weights.linear_number(value - 1)
        return layer_steps(self.weights.linear, number, self.choices[value - 1], x, y, self.width)

    def pool(self, node: Pool, own: Panel, result: Panel, x: Where, y: Where) -> Sequence[Operation]:
        return panel_pool(node.kind, node.window, own, result, x, y, self.lanes)

    def mean(self, own: Panel, result: Panel, x: Where, y: Where) -> Sequence[Operation]:
        whole = Window((own.height, own.width))
        return panel_pool(PoolKind.MEAN, whole, own, result, x, y, self.lanes)

    def shortcut(self, node: Shortcut, own: Panel, result: Panel, x: Where, y: Where) -> Sequence[Operation]:
        there = after(y, node.before * result.plane)
        behind = (result.channels - node.before - own.channels) * result.plane
        return [
            *self._copied(Window((1, 1), (node.step, node.step)), own, result, x, there),
            cleared(node.before * result.plane, y),
            cleared(behind, after(there, own.channels * result.plane)),
        ]

    def flatten(self, value: int, own: Panel, result: Panel, x: Where, y: Where) -> Sequence[Operation]:
        if value in self._same:
            return []
        return self._copied(COPY, own, _flat(own), x, y)


def panel_of(shape: Shape, border: int, width: int) -> Panel:
    """How a value of a panel of examples lies."""
    channels, height, columns = shape if len(shape) == 3 else (shape[0], 1, 1)
    panel = Panel(channels, height, columns, border, width)
    # Channels an odd number of vectors apart share no places of a cache. What may be flattened lies without gaps.
    return replace(panel, spare=1 - panel.positions % 2) if border else panel


def _flat(panel: Panel) -> Panel:
    """The panel without border and gaps."""
    return replace(panel, border=0, spare=0)
