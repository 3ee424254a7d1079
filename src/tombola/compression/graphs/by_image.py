"""A graph for one example: values are images, and what windows see is copied to whole vectors."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from tombola.compression.compiled import Operation, layer_steps, scratch_of
from tombola.compression.graphs.lowered import Lowered, PackedGraph
from tombola.compression.graphs.nodes import Convolution, Dense, Flatten, Mean, Node, Pool, Shape, Shortcut
from tombola.compression.graphs.places import flattened
from tombola.compression.plans import Choice, Kernel
from tombola.kernels.expansions import Expansion, all_windows
from tombola.kernels.pools import PoolKind
from tombola.kernels.program import Place, Step, Where
from tombola.kernels.window_steps import (
    after,
    cleared,
    copied_rows,
    expanded,
    image_pool,
    plane_means,
    pool_scratch,
)
from tombola.kernels.windows import ROUND, ImageLayout, Window, features, image_layout

POOL = Window((2, 2), (2, 2))


class Images(Lowered[ImageLayout]):
    """One example, number `row` of the input."""

    def __init__(self, weights: PackedGraph, choices: Sequence[Choice], row: int, bare: bool = False) -> None:
        self.row = row
        super().__init__(weights, choices, bare)

    def laid_out(self) -> list[ImageLayout]:
        images: list[ImageLayout] = [image_of(shape, self.lanes) for shape in self.graph.shapes()]
        if self.direct:
            images[0] = gapless(self.graph.shape)
        for number, node in enumerate(self.graph.nodes):
            readers = [reader for reader in self.graph.nodes if number + 1 in reader.inputs]
            if isinstance(node, Mean) and all(isinstance(reader, Flatten) for reader in readers):
                images[number + 1] = gapless(node.shape)
        last = self.graph.nodes[-1]
        if isinstance(last, Convolution) and len(last.inputs) == 1 and not self.bare:
            whole = gapless(last.shape)
            if whole.pitch % ROUND == 0 and whole.plane % self.lanes == 0:
                images[-1] = whole
        return images

    @functools.cached_property
    def direct(self) -> bool:
        """The input can stay where the caller has it: it is only copied for windows, which reads nothing beside it."""
        readers = [node for node in self.graph.nodes if 0 in node.inputs]
        return not self.bare and all(0 not in node.inputs[1:] and _step(node) == 1 for node in readers)

    def slack_wanted(self) -> int:
        slack = 0
        for number, node in enumerate(self.graph.nodes):
            own, result = self.layouts[node.inputs[0]], self.layouts[number + 1]
            if isinstance(node, Convolution) and self.choices[number].kernel != Kernel.DENSE:
                apart, before = unpooled(node, own, result, self.lanes)
                packed, _ = self.weights.packed(number, self.choices[number], apart.window, own, before)
                slack = max(slack, packed.expansion.slack if packed.expansion else 0)
                if apart is not node:
                    slack = max(slack, all_windows(before, POOL, result).slack)
            elif isinstance(node, Pool):
                slack = max(slack, all_windows(own, node.window, result).slack)
            elif isinstance(node, Shortcut):
                slack = max(slack, _strided(own, result, node).slack)
        return -(-slack // 16) * 16

    def in_place(self) -> dict[int, int]:
        return {value: own for value, own in flattened(self.graph).items() if self.layouts[own].compact}

    def writes_output(self) -> bool:
        return self.layouts[-1].compact

    def output(self) -> Where:
        return Where(Place.OUTPUT, self.row * self.graph.outputs)

    def input(self) -> Where | None:
        return Where(Place.INPUT, self.row * self.graph.inputs) if self.direct else None

    def begin(self) -> None:
        if not self.direct:
            begin = Where(Place.INPUT, self.row * self.graph.inputs)
            self.steps.append(_rows(self.layouts[0], begin, self.places[0], inwards=True))

    def end(self) -> None:
        if self.places[-1].place is not Place.OUTPUT:
            self.steps.append(_rows(self.layouts[-1], self.places[-1], self.output(), inwards=False))

    def convolution(
        self, value: int, node: Convolution, own: ImageLayout, result: ImageLayout, x: Where, y: Where
    ) -> list[Operation]:
        """A pool whose images are too small to fill vectors comes after, not with the convolution."""
        if self.choices[value - 1].kernel == Kernel.DENSE:
            return super().convolution(value, node, own, result, x, y)
        apart, before = unpooled(node, own, result, self.lanes)
        if apart is node:
            return super().convolution(value, node, own, result, x, y)
        begin = self.room.take(before.size)
        sums = self.within(begin)
        steps = super().convolution(value, apart, own, before, x, sums)
        steps += self._pool(PoolKind.MAX, POOL, before, result, sums, y)
        self.room.give_back(begin)
        return steps

    def dense(self, value: int, node: Dense, x: Where, y: Where) -> Sequence[Operation]:
        number = self.weights.linear_number(value - 1)
        room = self.scratch(scratch_of(node.layer))
        return layer_steps(self.weights.linear, number, self.choices[value - 1], x, y, 1, room)

    def pool(self, node: Pool, own: ImageLayout, result: ImageLayout, x: Where, y: Where) -> Sequence[Operation]:
        return self._pool(node.kind, node.window, own, result, x, y)

    def _pool(
        self, kind: PoolKind, window: Window, own: ImageLayout, result: ImageLayout, x: Where, y: Where
    ) -> list[Operation]:
        scratch = self.scratch(pool_scratch(window, result))
        return [*image_pool(kind, window, own, result, x, y, scratch, self.lanes)]

    def mean(self, own: ImageLayout, result: ImageLayout, x: Where, y: Where) -> Sequence[Operation]:
        if result.compact:
            return [plane_means(own, x, y)]
        means = self.scratch(own.channels)
        copy = copied_rows(own.channels, 1, 1, means, 1, 1, y, result.plane, result.pitch)
        return [plane_means(own, x, means), copy]

    def shortcut(
        self, node: Shortcut, own: ImageLayout, result: ImageLayout, x: Where, y: Where
    ) -> Sequence[Operation]:
        expansion = _strided(own, result, node)
        there = after(y, node.before * result.plane)
        behind = (result.channels - node.before - own.channels) * result.plane
        return [
            expanded(expansion, own.channels, own.plane, x, there, size=result.plane),
            cleared(node.before * result.plane, y),
            cleared(behind, after(there, own.channels * result.plane)),
        ]

    def flatten(self, value: int, own: ImageLayout, result: ImageLayout, x: Where, y: Where) -> Sequence[Operation]:
        if value in self._same:
            return []
        return [_rows(own, x, y, inwards=False)]


def _rows(layout: ImageLayout, x: Where, y: Where, inwards: bool) -> Step:
    """A copy between `layout` and one without gaps: from the latter `inwards`, else to it."""
    channels, height, width = layout.channels, layout.height, layout.width
    if layout.compact:
        channels, height, width = 1, 1, channels * height * width
    gapless, own = (height * width, width), (layout.plane, layout.pitch)
    if layout.compact:
        own = gapless
    source, goal = (gapless, own) if inwards else (own, gapless)
    return copied_rows(channels, height, width, x, *source, y, *goal)


def _step(node: Node) -> int:
    """How far apart a row's neighbours are that a copy for windows takes side by side; 0 for nodes without copies."""
    if isinstance(node, Convolution | Pool):
        return node.window.step[1]
    return node.step if isinstance(node, Shortcut) else 0


def gapless(shape: Shape) -> ImageLayout:
    """An image as torch has it."""
    channels, height, width = shape
    return ImageLayout(channels, height, width, width, height * width)


def image_of(shape: Shape, lanes: int) -> ImageLayout:
    """How a value of one example lies."""
    return image_layout(*shape, lanes) if len(shape) == 3 else features(shape[0])


def unpooled(node: Convolution, own: ImageLayout, result: ImageLayout, lanes: int) -> tuple[Convolution, ImageLayout]:
    """The convolution without its pool where four pooled vectors are more than it has without, and what it gives."""
    if node.window.pool == 1:
        return node, result
    alone = replace(node.window, pool=1)
    whole = image_layout(result.channels, *alone.outputs(own.height, own.width), lanes)
    if node.window.pool**2 * result.plane <= whole.plane:
        return node, result
    return replace(node, window=alone), whole


def _strided(own: ImageLayout, result: ImageLayout, node: Shortcut) -> Expansion:
    return all_windows(own, Window((1, 1), (node.step, node.step)), result)
