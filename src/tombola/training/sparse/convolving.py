"""The steps of programs that convolutions in training are made of, over tiles of one chunk: forward, pool and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tombola.kernels.choices import TAKEN, UNPOOL, choosing_product
from tombola.kernels.packing import Floats, Pattern
from tombola.kernels.pools import PoolKind, pool
from tombola.kernels.products import Epilogue
from tombola.kernels.program import Argument, Step, Where
from tombola.kernels.steps import NOWHERE
from tombola.kernels.tile_samples import tile_samples
from tombola.kernels.tiles import tile_product
from tombola.training.sparse.activations import ChunkLayout, Tiles, all_positions, plain_tiles

BYTES = 4
"""Of a float."""


@dataclass(frozen=True)
class Matrix:
    """A convolution as a sparse matrix: its pattern, the values of each block, a bias for each row."""

    pattern: Pattern
    values: Sequence[Floats]
    bias: Floats

    @property
    def rows(self) -> int:
        return self.pattern.shape[0]

    def inputs(self, number: int, x: ChunkLayout) -> tuple[Argument, ...]:
        """The arguments of kernels that say what block `number` is and what it reads."""
        block, vector = self.pattern.blocks[number], x.panel.examples
        where = x.at(block.first * vector)
        return (self.rows, block.starts, block.columns, self.values[number], self.bias, where, vector)


def convolution(
    matrix: Matrix,
    x: ChunkLayout,
    y: ChunkLayout,
    tiles: Iterable[Tiles],
    epilogue: Epilogue,
    gate: ChunkLayout | None = None,
) -> list[Step]:
    """y = the epilogue of the convolution of x; the gate lies like y."""
    last = len(matrix.pattern.blocks) - 1
    steps = []
    for part in tiles:
        for number in range(last + 1):
            kernel = tile_product(
                part.origins.shape[1], number == 0, epilogue if number == last else Epilogue.NONE, pooled=False
            )
            where = (y.at(), y.panel.plane, part.count, part.origins, part.goals, gate.at() if gate else NOWHERE)
            steps.append(Step(kernel, (*matrix.inputs(number, x), *where)))
    return steps


@dataclass(frozen=True)
class Choices:
    """What the pool of one chunk took: a byte for each, written forward and read on the way back.

    `memory` holds four of them in a float. They lie part after part, which are the same both ways.
    """

    memory: Tensor
    rows: int
    lanes: int

    @classmethod
    def of(cls, rows: int, tiles: Sequence[Tiles], lanes: int) -> Choices:
        return cls(torch.zeros(sum(_floats_of_choices(rows, part, lanes) for part in tiles)), rows, lanes)

    def at(self, tiles: Sequence[Tiles]) -> list[Where]:
        """Where those of each part are."""
        sizes = [_floats_of_choices(self.rows, part, self.lanes) for part in tiles]
        return [Where(self.memory.numpy(), sum(sizes[:number])) for number in range(len(sizes))]


def _floats_of_choices(rows: int, part: Tiles, lanes: int) -> int:
    return rows * part.count * lanes // BYTES


def sums_before_pool(matrix: Matrix, tiles: Sequence[Tiles], lanes: int) -> Floats:
    """Room for the sums of a part that are not yet pooled, if the matrix has several blocks."""
    if len(matrix.pattern.blocks) == 1:
        return np.zeros(0, dtype=np.float32)
    return np.zeros(matrix.rows * max(part.count for part in tiles) * TAKEN * lanes, dtype=np.float32)


def pooled_convolution(
    matrix: Matrix, x: ChunkLayout, y: ChunkLayout, tiles: Sequence[Tiles], choices: Choices, sums: Floats
) -> list[Step]:
    """y = the largest of each pool's four sums, or 0, and which it was; `sums` is `sums_before_pool`."""
    last = len(matrix.pattern.blocks) - 1
    steps = []
    for part, taken in zip(tiles, choices.at(tiles), strict=True):
        every = np.arange(part.count * TAKEN, dtype=np.int32).reshape(-1, TAKEN) * choices.lanes
        for number in range(last):
            where = (Where(sums), every.size * choices.lanes, part.count, part.origins, every, NOWHERE)
            kernel = tile_product(TAKEN, number == 0, Epilogue.NONE, pooled=False)
            steps.append(Step(kernel, (*matrix.inputs(number, x), *where)))
        goals = (y.at(), y.panel.plane, part.count, part.origins, part.goals)
        steps.append(Step(choosing_product(last == 0), (*matrix.inputs(last, x), *goals, Where(sums), taken)))
    return steps


def samples(
    pattern: Pattern,
    gradients: Sequence[Floats],
    bias_gradients: Floats,
    delta: ChunkLayout,
    x: ChunkLayout,
    tiles: Sequence[Tiles],
    choices: Choices | None,
    fresh: bool,
) -> list[Step]:
    """The gradients of weights and biases; with `choices` delta is that behind a pool.

    They are added to what is there unless the chunk is a `fresh` beginning.
    """
    rows, vector = pattern.shape[0], x.panel.examples
    where = [NOWHERE] * len(tiles) if choices is None else choices.at(tiles)
    steps = []
    for part, taken in zip(tiles, where, strict=True):
        for number, (block, own) in enumerate(zip(pattern.blocks, gradients, strict=True)):
            kernel = tile_samples(part.origins.shape[1], choices is not None, biases=number == 0)
            outer = (rows, block.starts, block.columns, delta.at(), delta.panel.plane, taken)
            inner = (x.at(block.first * vector), vector, own, bias_gradients)
            steps.append(
                Step(kernel, (*outer, *inner, part.count, part.origins, part.goals, int(fresh and part is tiles[0])))
            )
    return steps


def unpooled(delta: ChunkLayout, before: ChunkLayout, tiles: Sequence[Tiles], choices: Choices) -> list[Step]:
    """The gradient before a pool from that behind it; tiles lead from four vectors before to one behind."""
    rows = delta.panel.channels
    steps = []
    for part, taken in zip(tiles, choices.at(tiles), strict=True):
        where = (before.at(), before.panel.plane, part.count, part.goals, part.origins)
        steps.append(Step(UNPOOL, (rows, delta.at(), delta.panel.plane, taken, *where)))
    return steps


def copied(x: ChunkLayout, y: ChunkLayout) -> Step:
    """The same positions, laid out like y."""
    positions = all_positions(x.panel.height, x.panel.width)
    (tiles,) = plain_tiles(x.vectors(positions), y.vectors(positions), 1)
    tables = (tiles.count, 1, tiles.origins, tiles.goals, NOWHERE)
    return Step(pool(PoolKind.MAX), (x.panel.channels, x.at(), x.panel.plane, y.at(), y.panel.plane, *tables))
