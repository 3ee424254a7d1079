"""Sampled products over vectors that lie anywhere, as machine code: the gradient of a convolution's kept weights.

What `tiles` computes forward, backward: of every nonzero the sum, over all positions and examples, of the gradient of
its output times its input. Nonzeros of a row are taken side by side, so that the gradient is read once for all of them,
and are then reduced together (`samples.sums_of_vectors`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from llvmlite import ir

from tombola.kernels.choices import TAKEN, parts_of_pooled
from tombola.kernels.compiler import Kernel
from tombola.kernels.emit import INT16, INT64, POINTER, Emitter, i64
from tombola.kernels.products import TILES
from tombola.kernels.samples import sums_of_vectors

SUMS = 8
"""Vectors of sums side by side: enough additions in flight to hide the latency of one, and few enough pointers."""
GROUPS = (8, 4, 2, 1)
"""Nonzeros of a row that are taken together, as long as so many are left."""


@functools.cache
def tile_samples(tiles: int, pooled: bool, biases: bool) -> Kernel:
    """The kernel name(rows, starts, columns, delta, row_stride, choices, x, column_stride, gradients, sums, count,
    from, to, fresh).

    For k from starts[r] to starts[r+1] of every row r: gradients[k] = (0 if `fresh` else gradients[k]) + Σ_t Σ_v delta
    [r·row_stride + to[v] ...] · x[columns[k]·column_stride + from[v] ...], over the lanes of the vectors v < `tiles` of
    each tile t < count, whose `from` and `to` lie as for `tile_product`. With `biases` sums[r] gathers delta alone.

    Where `pooled`, `to` has one number for each tile, and a lane of delta belongs to that of four vectors which
    `choices` names, as `choosing_product` leaves them; nobody looks at them otherwise.
    """
    assert tiles == TAKEN if pooled else 1 <= tiles <= TILES

    def emit(module: ir.Module, name: str, lanes: int) -> None:
        arguments = [INT64, *[POINTER] * 3, INT64, POINTER, POINTER, INT64, POINTER, POINTER, INT64, POINTER, POINTER]
        emit = Emitter.begin(module, name, [*arguments, INT64], lanes)
        rows, starts, _, delta, row_stride, *_ = emit.function.args
        fresh = emit.builder.icmp_signed("!=", emit.function.args[13], i64(0))
        with emit.loop(i64(0), rows) as row:
            own = emit.at(delta, emit.builder.mul(row.index, row_stride))
            samples = _Row(emit, tiles, pooled, row.index, own, fresh)
            if biases:
                samples.bias()
            begin, end = emit.range_of(starts, row.index)
            for group in GROUPS:
                begin = samples.groups(begin, end, group)
        emit.end()

    form = f"{'pooled' if pooled else 'plain'}{'_with_biases' if biases else ''}"
    return Kernel(f"tile_samples_{tiles}_{form}", emit)


@dataclass(frozen=True)
class _Row:
    """The samples of one row, whose gradient begins at `delta`."""

    emit: Emitter
    tiles: int
    pooled: bool
    row: ir.Value
    delta: ir.Value
    fresh: ir.Value

    def bias(self) -> None:
        """The sum of the row's gradient; a pool gives each lane of it to exactly one position."""
        emit = self.emit
        *_, sums, count, _, goals, _ = emit.function.args
        vectors = count if self.pooled else emit.builder.mul(count, i64(self.tiles))
        with emit.loop(i64(0), vectors, [emit.zeros()]) as vector:
            own = emit.load(self.delta, emit.number(goals, vector.index), emit.vector)
            vector.next[0] = emit.builder.fadd(vector.values[0], own)
        self.accumulate(emit.sum_of_lanes(vector.values[0]), sums, self.row)

    def groups(self, begin: ir.Value, end: ir.Value, group: int) -> ir.Value:
        """The gradients from `begin` on, as many whole groups as fit before `end`; returns where they end."""
        emit, builder = self.emit, self.emit.builder
        _, _, columns, _, _, _, x, column_stride, gradients, _, count, _, _, _ = emit.function.args
        whole = builder.add(begin, builder.and_(builder.sub(end, begin), i64(-group)))
        chains = min(self.tiles, SUMS // group)  # of sums for each nonzero
        with emit.loop(begin, whole, step=group) as first:
            inputs = []
            for other in range(group):
                column = emit.number(columns, builder.add(first.index, i64(other)), INT16)
                inputs.append(emit.at(x, builder.mul(column, column_stride)))
            with emit.loop(i64(0), count, [emit.zeros()] * (group * chains)) as tile:
                sums = list(tile.values)
                for number, (origin, own) in enumerate(self.vectors(tile.index)):
                    for other, pointer in enumerate(inputs):
                        chain = other * chains + number % chains
                        sums[chain] = emit.fma(own, emit.load(pointer, origin, emit.vector), sums[chain])
                tile.next[:] = sums
            totals = [
                functools.reduce(builder.fadd, tile.values[other * chains : (other + 1) * chains])
                for other in range(group)
            ]
            self.reduce(totals, gradients, first.index)
        return whole

    def vectors(self, tile: ir.Value) -> list[tuple[ir.Value, ir.Value]]:
        """Where the inputs of a tile's vectors lie, and the gradients of their outputs."""
        emit, builder = self.emit, self.emit.builder
        count, origins, goals = emit.function.args[10:13]
        numbers = [builder.add(builder.mul(tile, i64(self.tiles)), i64(vector)) for vector in range(self.tiles)]
        begin = [emit.number(origins, number) for number in numbers]
        if self.pooled:
            delta = emit.load(self.delta, emit.number(goals, tile), emit.vector)
            choice = builder.add(builder.mul(self.row, count), tile)
            return list(zip(begin, parts_of_pooled(emit, delta, emit.function.args[5], choice), strict=True))
        own = [emit.load(self.delta, emit.number(goals, number), emit.vector) for number in numbers]
        return list(zip(begin, own, strict=True))

    def reduce(self, totals: list[ir.Value], base: ir.Value, index: ir.Value) -> None:
        """The sums of the lanes of as many vectors as are side by side, to base[index ...]."""
        lanes = self.emit.lanes
        for first in range(0, len(totals), lanes):  # short vectors have fewer lanes than nonzeros are side by side
            own = totals[first : first + lanes]
            amount = self.emit.sum_of_lanes(own[0]) if len(own) == 1 else sums_of_vectors(self.emit, own)
            self.accumulate(amount, base, self.emit.builder.add(index, i64(first)))

    def accumulate(self, amount: ir.Value, base: ir.Value, index: ir.Value) -> None:
        """Stores what comes first and adds what comes later."""
        before = self.emit.load(base, index, amount.type)
        total = self.emit.builder.fadd(before, amount)
        self.emit.store(self.emit.builder.select(self.fresh, amount, total), base, index)
