"""A graph's weights as kernels read them, packed when first asked for. Any thread may ask."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tombola.compression.compiled import Arrays, Compiled, without_places
from tombola.compression.graphs.lowering import lower
from tombola.compression.graphs.nodes import Convolution, Dense, Graph
from tombola.compression.graphs.on_torch import computed
from tombola.compression.plans import Choice, Kernel, Plan
from tombola.kernels.convolutions import (
    Packed,
    columns_of_all,
    columns_of_rows,
    most_channels,
    pack_all,
    pack_panel,
    pack_rows,
)
from tombola.kernels.packing import Floats, values_of
from tombola.kernels.target import host
from tombola.kernels.window_steps import Layout
from tombola.kernels.windows import ImageLayout, Panel, Window

Key = tuple[int, Kernel, int, Layout]


class GraphArrays:
    """`numbers` are those of the nodes that have layers: a plan has a choice for each, in this order."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.layers = graph, graph.layers
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.numbers = [n for n, node in enumerate(graph.nodes) if isinstance(node, Convolution | Dense)]
        dense = [number for number in self.numbers if isinstance(graph.nodes[number], Dense)]
        self.linear = Arrays([node.layer for node in graph.nodes if isinstance(node, Dense)])
        self._linear_numbers = {number: place for place, number in enumerate(dense)}
        self._lock = threading.Lock()
        self._packed: dict[Key, tuple[Packed, list[Floats]]] = {}
        self._dense: dict[int, Tensor] = {}

    def linear_number(self, number: int) -> int:
        """Which of the Linear layers a node is."""
        return self._linear_numbers[number]

    def packed(
        self, number: int, choice: Choice, window: Window, own: Layout, result: Layout
    ) -> tuple[Packed, list[Floats]]:
        """A convolution for a layout of its inputs: pattern and tables, and the values of its blocks."""
        node = self.graph.nodes[number]
        assert isinstance(node, Convolution)
        key = number, choice.kernel, choice.block, own
        with self._lock:
            if key not in self._packed:
                keep = node.layer.keep()
                lanes = host().lanes
                if isinstance(own, Panel):
                    assert isinstance(result, Panel)
                    channels = _channels(choice, own, own.positions)
                    packed = pack_panel(keep, node.groups, window, own, result, lanes, channels)
                else:
                    assert isinstance(result, ImageLayout)
                    columns = columns_of_rows(window, result, lanes)
                    rows = choice.kernel is Kernel.SHIFTED_ROWS and result.pitch % lanes == 0
                    # Chosen on a machine with other vectors, rows may not be whole ones here, or too long.
                    if rows and most_channels(columns):
                        channels = _channels(choice, own, columns)
                        packed = pack_rows(keep, node.groups, window, own, result, lanes, channels)
                    else:
                        channels = _channels(choice, own, columns_of_all(window))
                        packed = pack_all(keep, node.groups, window, own, result, lanes, channels)
                weights = self._weight(number).numpy()
                values = [values_of(weights, block) for block in packed.pattern.blocks]
                self._packed[key] = replace(packed, pattern=without_places(packed.pattern)), values
            return self._packed[key]

    def dense(self, number: int) -> Tensor:
        """The weights of a convolution, removed ones 0."""
        with self._lock:
            return self._weight(number)

    def _weight(self, number: int) -> Tensor:
        node = self.graph.nodes[number]
        assert isinstance(node, Convolution)
        if number not in self._dense:
            self._dense[number] = torch.from_numpy(node.layer.matrix())
        return self._dense[number]

    def keep_only(self, plans: Sequence[Plan]) -> None:
        """Forgets what these plans do not need."""
        wanted = {
            (number, choice.kernel, choice.block)
            for plan in plans
            for number, choice in zip(self.numbers, plan.choices, strict=True)
        }
        with self._lock:
            self._packed = {key: arrays for key, arrays in self._packed.items() if key[:3] in wanted}
            dense = {number for number, kernel, _ in wanted if kernel == Kernel.DENSE}
            self._dense = {number: weight for number, weight in self._dense.items() if number in dense}
        if self.linear.layers:
            self.linear.keep_only([replace(plan, choices=self._linear_choices(plan)) for plan in plans])

    def _linear_choices(self, plan: Plan) -> tuple[Choice, ...]:
        choices = zip(self.numbers, plan.choices, strict=True)
        return tuple(choice for number, choice in choices if number in self._linear_numbers)

    def compile(self, plan: Plan, rows: int) -> Compiled:
        """See `lower`."""
        return lower(self, plan, rows)

    def on_torch(self, x: Tensor) -> Tensor:
        """The whole graph on torch, x (n, ...)."""
        return self.values_on_torch(x, keep_all=False)[-1]

    def values_on_torch(self, x: Tensor, keep_all: bool = True) -> list[Tensor]:
        """All values of the graph; those that nobody reads any more are empty unless `keep_all`."""
        last = self.graph.last_uses()
        values = [x]
        for number, node in enumerate(self.graph.nodes):
            values.append(computed(node, [values[value] for value in node.inputs], self._weight_of(number)))
            if not keep_all:
                for value in node.inputs:
                    if last[value] == number:
                        values[value] = x[:0]
        return values

    def _weight_of(self, number: int) -> Tensor | None:
        if number in self._linear_numbers:
            return self.linear.dense(self._linear_numbers[number])
        return self.dense(number) if isinstance(self.graph.nodes[number], Convolution) else None


def _channels(choice: Choice, own: Layout, columns: int) -> int:
    """How many channels at a time: as chosen, but no more than there are, or than have columns that can be counted."""
    return min(choice.block, own.channels, max(1, most_channels(columns)))
