"""The steps of a graph, node by node: what images and panels have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from tombola.compression.compiled import Arrays, Operation
from tombola.compression.graphs.nodes import (
    Combine,
    Convolution,
    Dense,
    Flatten,
    Graph,
    Mean,
    Node,
    Pool,
    Shortcut,
)
from tombola.compression.graphs.on_torch import TorchConvolution
from tombola.compression.graphs.places import Room, last_uses
from tombola.compression.plans import Choice, Kernel
from tombola.kernels.convolutions import Packed
from tombola.kernels.packing import Floats
from tombola.kernels.products import Epilogue
from tombola.kernels.program import Place, Where
from tombola.kernels.steps import NOWHERE
from tombola.kernels.target import host
from tombola.kernels.window_steps import Ends, Layout, cleared_border, combined, convolution, convolution_scratch
from tombola.kernels.windows import ImageLayout, Panel, Window

Own = TypeVar("Own", ImageLayout, Panel)
"""How values lie."""


class PackedGraph(Protocol):
    """A graph whose weights are packed for kernels when they are first asked for, by the numbers of its nodes."""

    graph: Graph
    numbers: list[int]
    """Of the nodes that have layers: a plan has a choice for each, in this order."""
    linear: Arrays
    """Of the Linear layers, in order."""

    def linear_number(self, number: int) -> int:
        """Which of the Linear layers a node is."""

    def packed(
        self, number: int, choice: Choice, window: Window, own: Layout, result: Layout
    ) -> tuple[Packed, list[Floats]]:
        """A convolution for a layout of its inputs: pattern and tables, and the values of its blocks."""

    def dense(self, number: int) -> Tensor:
        """The weights of a convolution, removed ones 0."""


class Lowered(ABC, Generic[Own]):
    """The steps of a graph, node by node; `layouts` and `places` are those of its values.

    `bare`: input and output lie as they do between nodes, the input with slack before and behind.
    """

    def __init__(self, weights: PackedGraph, choices: Sequence[Choice], bare: bool = False) -> None:
        self.weights, self.graph, self.bare = weights, weights.graph, bare
        self.lanes = host().lanes
        self.choices = dict(zip(weights.numbers, choices, strict=True))
        self.room, self.steps = Room(), list[Operation]()
        self.layouts: list[Own] = self.laid_out()
        self.slack = self.slack_wanted()
        self.places: list[Where] = []
        self._same = self.in_place()
        last = last_uses(self.graph, self._same)
        owners: dict[int, int] = {}
        for number, node in enumerate([None, *self.graph.nodes]):
            self.places.append(self._place_of(number, owners))
            if node is not None:
                self.do(number, node)
            elif not bare:
                self.begin()
            for value in [value for value in owners if last[value] < number]:
                self.room.give_back(owners.pop(value))
        if not bare:
            self.end()
        self.workspace = self.room.size + 2 * self.slack

    def _place_of(self, value: int, owners: dict[int, int]) -> Where:
        if self.bare and value in (0, len(self.graph.nodes)):
            return Where(Place.OUTPUT) if value else Where(Place.INPUT, self.slack)
        if value in self._same:
            return self.places[self._same[value]]
        if not value and (given := self.input()) is not None:
            return given
        if value == len(self.graph.nodes) and self.writes_output():
            return self.output()
        owners[value] = self.room.take(self.layouts[value].size)
        return self.within(owners[value])

    def within(self, offset: int) -> Where:
        return Where(Place.WORKSPACE, self.slack + offset)

    def scratch(self, count: int) -> Where:
        """Room for one step: what others take later may lie there."""
        begin = self.room.take(count)
        self.room.give_back(begin)
        return self.within(begin)

    def do(self, value: int, node: Node) -> None:
        """Adds the steps that compute a value."""
        x, y = self.places[node.inputs[0]], self.places[value]
        own, result = self.layouts[node.inputs[0]], self.layouts[value]
        match node:
            case Convolution():
                self.steps += self.convolution(value, node, own, result, x, y)
            case Dense():
                self.steps += self.dense(value, node, x, y)
            case Pool():
                self.steps += self.pool(node, own, result, x, y)
            case Mean():
                self.steps += self.mean(own, result, x, y)
            case Combine():
                other = self.places[node.inputs[1]] if len(node.inputs) > 1 else None
                self.steps.append(combined(result, x, y, node.scale, node.shift, node.relu, other))
            case Shortcut():
                self.steps += self.shortcut(node, own, result, x, y)
            case Flatten():
                self.steps += self.flatten(value, own, result, x, y)
        if isinstance(result, Panel):
            self.steps += cleared_border(result, y)

    def convolution(self, value: int, node: Convolution, own: Own, result: Own, x: Where, y: Where) -> list[Operation]:
        """By the choice made for it."""
        choice = self.choices[value - 1]
        gate = self.places[node.inputs[1]] if len(node.inputs) > 1 else None
        if choice.kernel == Kernel.DENSE:
            weight = self.weights.dense(value - 1)
            return [TorchConvolution(node, weight, (own, result), x, y, gate)]
        packed, values = self.weights.packed(value - 1, choice, node.window, own, result)
        scratch = self.scratch(convolution_scratch(packed, self.lanes))
        done = epilogue(node.layer.relu, gate is not None)
        ends = Ends(own, result, x, y)
        bias = node.layer.bias
        return list(convolution(packed, values, bias, ends, done, scratch, self.lanes, gate or NOWHERE))

    @abstractmethod
    def laid_out(self) -> list[Own]:
        """How each value lies."""

    def slack_wanted(self) -> int:
        """Floats around the workspace that kernels may read."""
        return 0

    def input(self) -> Where | None:
        """Where the caller has the input, if nodes read it there."""
        return None

    @abstractmethod
    def in_place(self) -> dict[int, int]:
        """Values that are the memory of another."""

    @abstractmethod
    def writes_output(self) -> bool:
        """Whether the last node writes where the caller wants it."""

    @abstractmethod
    def output(self) -> Where:
        """Where the caller wants it."""

    @abstractmethod
    def begin(self) -> None:
        """The input's conversion."""

    @abstractmethod
    def end(self) -> None:
        """The output's."""

    @abstractmethod
    def dense(self, value: int, node: Dense, x: Where, y: Where) -> Sequence[Operation]: ...

    @abstractmethod
    def pool(self, node: Pool, own: Own, result: Own, x: Where, y: Where) -> Sequence[Operation]: ...

    @abstractmethod
    def mean(self, own: Own, result: Own, x: Where, y: Where) -> Sequence[Operation]: ...

    @abstractmethod
    def shortcut(self, node: Shortcut, own: Own, result: Own, x: Where, y: Where) -> Sequence[Operation]: ...

    @abstractmethod
    def flatten(self, value: int, own: Own, result: Own, x: Where, y: Where) -> Sequence[Operation]: ...


def epilogue(relu: bool, adds: bool) -> Epilogue:
    """What ends a convolution."""
    if adds:
        return Epilogue.ADD_RELU if relu else Epilogue.ADD
    return Epilogue.RELU if relu else Epilogue.NONE
