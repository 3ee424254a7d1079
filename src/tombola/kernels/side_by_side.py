"""Sparse matrix × one vector with 16 rows side by side, as machine code for AVX-512.

Sums of 16 rows lie in the lanes of one register. A step takes 16 neighbouring inputs in another, and at most one
nonzero of each row among them: a permutation brings every lane its input. So no input is fetched by itself, on which
other kernels for one vector spend most of their time. Rows with fewer nonzeros wait for the one with the most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from tombola.errors import KernelError
from tombola.kernels.compiler import Kernel
from tombola.kernels.emit import INT16, INT64, POINTER, Emitter, i64
from tombola.kernels.packing import MOST_COLUMNS, Floats

ROWS = 16
"""Rows side by side, and inputs that a step chooses from: the lanes of an AVX-512 register."""
NOBODY = 16
"""The lane of no input: a number that is always 0, so that nothing is computed from inputs that have no weight."""
CHAINS = 4
"""Steps that do not wait for one another's sums."""


@dataclass(frozen=True)
class SideBySide:
    """A matrix in steps: those of row group g are starts[g] to starts[g + 1].

    Step s multiplies the inputs x[firsts[s] + lanes[s]] (`lanes` 0 to 15, or NOBODY) with values[s], lane by lane.
    Groups are of 16 rows; the last one ends with the last row, and may have rows of the one before it.
    """

    starts: NDArray[np.int32]
    firsts: NDArray[np.uint16]
    lanes: NDArray[np.uint8]
    values: Floats


def fits(rows: int, columns: int, lanes: int) -> bool:
    """Whether there is such a kernel for a matrix on a machine with vectors of `lanes` floats."""
    return lanes == ROWS and rows >= ROWS and ROWS <= columns <= MOST_COLUMNS


def pack_side_by_side(keep: NDArray[np.bool_], matrix: Floats) -> SideBySide:
    """A matrix (rows, columns) of at least 16 × 16; weights that are kept and 0 are in it."""
    rows, columns = keep.shape
    if not fits(rows, columns, ROWS):
        raise KernelError(f"a matrix {keep.shape} has not 16 rows and 16 to {MOST_COLUMNS} columns")
    groups, blocks = -(-rows // ROWS), -(-columns // ROWS)
    begins = np.minimum(np.arange(groups) * ROWS, rows - ROWS)
    own = (begins[:, None] + np.arange(ROWS)).reshape(-1)
    slot, column = np.nonzero(keep[own])
    block = column // ROWS
    first = np.minimum(block * ROWS, columns - ROWS)
    tile = slot * blocks + block  # of one row and 16 inputs: nonzeros follow one another
    counts = np.bincount(tile, minlength=groups * ROWS * blocks)
    rank = np.arange(len(tile)) - np.repeat(np.cumsum(counts) - counts, counts)
    steps = counts.reshape(groups, ROWS, blocks).max(1)
    total = -(-steps.sum(1) // CHAINS) * CHAINS
    if total.sum() * ROWS > np.iinfo(np.int32).max:
        raise KernelError(f"{total.sum()} steps are more than a kernel counts")
    starts = np.concatenate([[0], np.cumsum(total)])
    begin = starts[:-1, None] + np.cumsum(steps, 1) - steps  # of each group's blocks
    group = slot // ROWS
    step = begin[group, block] + rank
    packed = SideBySide(
        starts.astype(np.int32),
        np.zeros(starts[-1], dtype=np.uint16),
        np.full((starts[-1], ROWS), NOBODY, dtype=np.uint8),
        np.zeros((starts[-1], ROWS), dtype=np.float32),
    )
    packed.firsts[step] = first
    packed.lanes[step, slot % ROWS] = column - first
    packed.values[step, slot % ROWS] = matrix[own[slot], column]
    return packed


def emit_side_by_side(module: ir.Module, name: str, lanes: int) -> None:
    """name(rows, starts, firsts, places, values, bias, x, y, relu): y = bias + W x, and max(·, 0) of it where `relu`.

    The matrix is packed as `SideBySide` (`places` are its `lanes`). Nothing is read or written but x and y.
    """
    if lanes != ROWS:
        raise KernelError(f"a kernel for {ROWS} lanes does not run on {lanes}")
    emit = Emitter.begin(module, name, [INT64, *[POINTER] * 7, INT64], lanes)
    rows, starts, firsts, places, values, bias, x, y, relu = emit.function.args
    builder = emit.builder
    last = builder.sub(rows, i64(ROWS))
    with_relu = builder.icmp_signed("!=", relu, i64(0))

    def product(step: ir.Value, total: ir.Value) -> ir.Value:
        at = builder.mul(step, i64(ROWS))
        inputs = emit.load(x, emit.number(firsts, step, INT16), emit.vector)
        chosen = emit.permuted(inputs, emit.bytes(places, at))
        return emit.fma(emit.load(values, at, emit.vector), chosen, total)

    groups = builder.sdiv(builder.add(rows, i64(ROWS - 1)), i64(ROWS))
    with emit.loop(i64(0), groups) as group:
        row = emit.least(builder.mul(group.index, i64(ROWS)), last)
        begin, end = emit.range_of(starts, group.index)
        sums = [emit.load(bias, row, emit.vector), *[emit.zeros()] * (CHAINS - 1)]
        with emit.loop(begin, end, sums, step=CHAINS) as together:
            for chain in range(CHAINS):
                step = builder.add(together.index, i64(chain))
                together.next[chain] = product(step, together.values[chain])
        total = together.values[0]
        for chain in together.values[1:]:
            total = builder.fadd(total, chain)
        emit.store(builder.select(with_relu, emit.maximum(total, emit.zeros()), total), y, row)
    emit.end()


SIDE_BY_SIDE = Kernel("side_by_side", emit_side_by_side, vectorise=False)
