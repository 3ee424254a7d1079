"""From a graph to steps of machine code: example by example as pictures, or many examples at a time as panels."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tombola.compression.graphs.nodes import (
    Combine,
    Convolution,
    Dense,
    Flatten,
    Mean,
    Node,
    Pool,
    Shape,
    Shortcut,
)
from tombola.compression.graphs.on_torch import TorchConvolution
from tombola.compression.graphs.places import Room, borders, flattened, last_uses
from tombola.compression.plans import (
    Choice,
    Compiled,
    Form,
    Kernel,
    Operation,
    Plan,
    layer_steps,
    scratch_of,
    segments_of,
    width_of,
)
from tombola.kernels.expansions import Expansion, all_windows
from tombola.kernels.pools import PoolKind
from tombola.kernels.products import Epilogue
from tombola.kernels.program import Place, Step, Where
from tombola.kernels.steps import from_panel, to_panel
from tombola.kernels.target import host
from tombola.kernels.window_steps import (
    Layout,
    after,
    cleared,
    cleared_border,
    combined,
    convolution,
    convolution_scratch,
    copied_rows,
    expanded,
    panel_pool,
    picture_pool,
    plane_means,
    pool_scratch,
)
from tombola.kernels.windows import ROUND, Panel, Picture, Window, features, picture

if TYPE_CHECKING:
    from tombola.compression.graphs.arrays import GraphArrays

COPY = Window((1, 1))


def lower(arrays: GraphArrays, plan: Plan, rows: int) -> Compiled:
    """The plan for `rows` examples: at most a panel of them where it goes by panels. Not for plans on torch."""
    if plan.form == Form.PANELS:
        whole = _Panels(arrays, plan.choices, rows)
        return Compiled(segments_of(whole.steps, whole.workspace), whole.workspace)
    steps: list[Operation] = []
    workspace = 0
    for row in range(rows):
        one = _Pictures(arrays, plan.choices, row)
        steps += one.steps
        workspace = one.workspace
    return Compiled(segments_of(steps, workspace), workspace)


@dataclass(frozen=True)
class Bare:
    """A graph of one node between values as they lie inside a larger one, to be measured: floats of input, output."""

    compiled: Compiled
    input: int
    output: int


def lower_bare(arrays: GraphArrays, choice: Choice, form: Form, rows: int) -> Bare:
    """One node for one example or a panel of `rows`, without the conversions at the ends."""
    own = _Panels(arrays, [choice], rows, True) if form == Form.PANELS else _Pictures(arrays, [choice], 0, True)
    compiled = Compiled(segments_of(own.steps, own.workspace), own.workspace)
    return Bare(compiled, own.layouts[0].size + 2 * own.slack, own.layouts[-1].size)


class _Lowering(ABC):
    """The steps of a graph, node by node; `layouts` and `places` are those of its values.

    `bare`: input and output lie as they do between nodes, the input with slack before and behind.
    """

    def __init__(self, arrays: GraphArrays, choices: Sequence[Choice], bare: bool = False) -> None:
        self.arrays, self.graph, self.bare = arrays, arrays.graph, bare
        self.lanes = host().lanes
        self.choices = dict(zip(arrays.numbers, choices, strict=True))
        self.room, self.steps = Room(), list[Operation]()
        self.layouts = self.laid_out()
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

    def convolution(
        self, value: int, node: Convolution, own: Layout, result: Layout, x: Where, y: Where
    ) -> list[Operation]:
        """By the choice made for it."""
        choice = self.choices[value - 1]
        gate = self.places[node.inputs[1]] if len(node.inputs) > 1 else None
        if choice.kernel == Kernel.DENSE:
            weight = self.arrays.dense(value - 1)
            return [TorchConvolution(node, weight, (own, result), x, y, gate)]
        packed, values = self.arrays.packed(value - 1, choice, node.window, own, result)
        scratch = self.scratch(convolution_scratch(packed, self.lanes))
        done = epilogue(node.layer.relu, gate is not None)
        beside = {} if gate is None else {"gate": gate}
        return [*convolution(packed, values, node.layer.bias, own, result, x, y, done, scratch, self.lanes, **beside)]

    @abstractmethod
    def laid_out(self) -> list[Layout]:
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
    def pool(self, node: Pool, own: Layout, result: Layout, x: Where, y: Where) -> Sequence[Operation]: ...

    @abstractmethod
    def mean(self, own: Layout, result: Layout, x: Where, y: Where) -> Sequence[Operation]: ...

    @abstractmethod
    def shortcut(self, node: Shortcut, own: Layout, result: Layout, x: Where, y: Where) -> Sequence[Operation]: ...

    @abstractmethod
    def flatten(self, value: int, own: Layout, result: Layout, x: Where, y: Where) -> Sequence[Operation]: ...


def epilogue(relu: bool, adds: bool) -> Epilogue:
    """What ends a convolution."""
    if adds:
        return Epilogue.ADD_RELU if relu else Epilogue.ADD
    return Epilogue.RELU if relu else Epilogue.NONE


class _Pictures(_Lowering):
    """One example, number `row` of the input."""

    layouts: list[Picture]  # type: ignore[assignment]

    def __init__(self, arrays: GraphArrays, choices: Sequence[Choice], row: int, bare: bool = False) -> None:
        self.row = row
        super().__init__(arrays, choices, bare)

    def laid_out(self) -> list[Layout]:
        pictures: list[Layout] = [picture_of(shape, self.lanes) for shape in self.graph.shapes()]
        if self.direct:
            pictures[0] = gapless(self.graph.shape)
        last = self.graph.nodes[-1]
        if isinstance(last, Convolution) and len(last.inputs) == 1 and not self.bare:
            whole = gapless(last.shape)
            if whole.pitch % ROUND == 0 and whole.plane % self.lanes == 0:
                pictures[-1] = whole
        return pictures

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
                packed, _ = self.arrays.packed(number, self.choices[number], apart.window, own, before)
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
        self, value: int, node: Convolution, own: Layout, result: Layout, x: Where, y: Where
    ) -> list[Operation]:
        """A pool whose pictures are too small to fill vectors comes after, not with the convolution."""
        assert isinstance(result, Picture)
        if self.choices[value - 1].kernel == Kernel.DENSE:
            return super().convolution(value, node, own, result, x, y)
        assert isinstance(own, Picture)
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
        number = self.arrays.linear_number(value - 1)
        room = self.scratch(scratch_of(node.layer))
        return layer_steps(self.arrays.linear, number, self.choices[value - 1], x, y, 1, room)

    def pool(self, node: Pool, own: Layout, result: Layout, x: Where, y: Where) -> Sequence[Operation]:
        assert isinstance(own, Picture)
        assert isinstance(result, Picture)
        return self._pool(node.kind, node.window, own, result, x, y)

    def _pool(
        self, kind: PoolKind, window: Window, own: Picture, result: Picture, x: Where, y: Where
    ) -> list[Operation]:
        scratch = self.scratch(pool_scratch(window, result))
        return [*picture_pool(kind, window, own, result, x, y, scratch, self.lanes)]

    def mean(self, own: Layout, result: Layout, x: Where, y: Where) -> Sequence[Operation]:
        assert isinstance(own, Picture)
        assert isinstance(result, Picture)
        if result.compact:
            return [plane_means(own, x, y)]
        means = self.scratch(own.channels)
        copy = copied_rows(own.channels, 1, 1, means, 1, 1, y, result.plane, result.pitch)
        return [plane_means(own, x, means), copy]

    def shortcut(self, node: Shortcut, own: Layout, result: Layout, x: Where, y: Where) -> Sequence[Operation]:
        assert isinstance(own, Picture)
        assert isinstance(result, Picture)
        expansion = _strided(own, result, node)
        there = after(y, node.before * result.plane)
        behind = (result.channels - node.before - own.channels) * result.plane
        return [
            expanded(expansion, own.channels, own.plane, x, there, size=result.plane),
            cleared(node.before * result.plane, y),
            cleared(behind, after(there, own.channels * result.plane)),
        ]

    def flatten(self, value: int, own: Layout, result: Layout, x: Where, y: Where) -> Sequence[Operation]:
        assert isinstance(own, Picture)
        if value in self._same:
            return []
        return [_rows(own, x, y, inwards=False)]


def _rows(layout: Picture, x: Where, y: Where, inwards: bool) -> Step:
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


def gapless(shape: Shape) -> Picture:
    """A picture as torch has it."""
    channels, height, width = shape
    return Picture(channels, height, width, width, height * width)


POOL = Window((2, 2), (2, 2))


def picture_of(shape: Shape, lanes: int) -> Picture:
    """How a value of one example lies."""
    return picture(*shape, lanes) if len(shape) == 3 else features(shape[0])


def unpooled(node: Convolution, own: Picture, result: Picture, lanes: int) -> tuple[Convolution, Picture]:
    """The convolution without its pool where four pooled vectors are more than it has without, and what it gives."""
    if node.window.pool == 1:
        return node, result
    alone = replace(node.window, pool=1)
    whole = picture(result.channels, *alone.outputs(own.height, own.width), lanes)
    if node.window.pool**2 * result.plane <= whole.plane:
        return node, result
    return replace(node, window=alone), whole


def _strided(own: Picture, result: Picture, node: Shortcut) -> Expansion:
    return all_windows(own, Window((1, 1), (node.step, node.step)), result)


class _Panels(_Lowering):
    """Up to a panel of examples."""

    layouts: list[Panel]  # type: ignore[assignment]

    def __init__(self, arrays: GraphArrays, choices: Sequence[Choice], rows: int, bare: bool = False) -> None:
        self.rows, self.width = rows, width_of(rows)
        super().__init__(arrays, choices, bare)

    def laid_out(self) -> list[Layout]:
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
        number = self.arrays.linear_number(value - 1)
        return layer_steps(self.arrays.linear, number, self.choices[value - 1], x, y, self.width)

    def pool(self, node: Pool, own: Layout, result: Layout, x: Where, y: Where) -> Sequence[Operation]:
        assert isinstance(own, Panel)
        assert isinstance(result, Panel)
        return panel_pool(node.kind, node.window, own, result, x, y, self.lanes)

    def mean(self, own: Layout, result: Layout, x: Where, y: Where) -> Sequence[Operation]:
        assert isinstance(own, Panel)
        assert isinstance(result, Panel)
        whole = Window((own.height, own.width))
        return panel_pool(PoolKind.MEAN, whole, own, result, x, y, self.lanes)

    def shortcut(self, node: Shortcut, own: Layout, result: Layout, x: Where, y: Where) -> Sequence[Operation]:
        assert isinstance(own, Panel)
        assert isinstance(result, Panel)
        there = after(y, node.before * result.plane)
        behind = (result.channels - node.before - own.channels) * result.plane
        return [
            *self._copied(Window((1, 1), (node.step, node.step)), own, result, x, there),
            cleared(node.before * result.plane, y),
            cleared(behind, after(there, own.channels * result.plane)),
        ]

    def flatten(self, value: int, own: Layout, result: Layout, x: Where, y: Where) -> Sequence[Operation]:
        assert isinstance(own, Panel)
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
