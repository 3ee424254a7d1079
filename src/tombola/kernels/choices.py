"""Convolutions with a max pool behind them that remember which position was taken, and the way back, as machine code.

What was taken is a byte for each example and pooled position, a quarter of its activation. With it nobody needs to keep
what the pool saw, four times as much as what it gave.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from llvmlite import ir

from tombola.kernels.compiler import Kernel
from tombola.kernels.emit import INT64, POINTER, Emitter, i64
from tombola.kernels.products import Epilogue, Matrix, Outputs, Product

INT8 = ir.IntType(8)
POOL = 2
"""Pools are of 2 × 2 positions, the windows of which do not overlap."""
TAKEN = POOL * POOL
"""Positions of which one is taken."""


@functools.cache
def choosing_product(first: bool) -> Kernel:
    """The kernel name(rows, starts, columns, values, bias, x, column_stride, y, row_stride, count, from, to, before,
    choices).

    As `tile_product` of four vectors, pooled and with RELU; where not `first`, sums go on that lie in `before` as
    (rows, count, 4) vectors. choices[(r·count + t)·lanes + e], a byte, is the number of the first vector that holds the
    largest sum of example e. Pools of torch break ties alike when vectors come row by row.
    """

    def emit(module: ir.Module, name: str, lanes: int) -> None:
        arguments = [INT64, *[POINTER] * 5, INT64, POINTER, INT64, INT64, *[POINTER] * 4]
        emit = Emitter.begin(module, name, arguments, lanes)
        rows, starts, columns, values, bias, x, column_stride, y, row_stride, count, origins, goals, before, choices = (
            emit.function.args
        )
        builder = emit.builder
        matrix, outputs = Matrix(rows, starts, columns, values, bias), Outputs(y, row_stride, before)
        stride = builder.mul(count, i64(TAKEN * lanes))
        with emit.loop(i64(0), count) as tile:
            begin = builder.mul(tile.index, i64(TAKEN))
            inputs = [emit.at(x, emit.number(origins, builder.add(begin, i64(tap)))) for tap in range(TAKEN)]
            product = _ChoosingProduct(
                emit,
                matrix,
                column_stride,
                outputs,
                first,
                Epilogue.RELU,
                choices=choices,
                count=count,
                tile=tile.index,
            )
            own = Outputs(emit.at(before, builder.mul(begin, i64(lanes))), stride, before)
            product.rows(inputs, [emit.number(goals, tile.index)], own)
        emit.end()

    return Kernel(f"choosing_product_{'fresh' if first else 'added'}", emit)


@dataclass(frozen=True, kw_only=True)
class _ChoosingProduct(Product):
    """Stores the largest of a tile's vectors, and which it was."""

    choices: ir.Value
    count: ir.Value
    tile: ir.Value

    def store(self, totals: Sequence[ir.Value], places: Sequence[ir.Value], row: ir.Value) -> None:
        emit, builder = self.emit, self.emit.builder
        largest, taken = totals[0], ir.Constant(_bytes(emit), [0] * emit.lanes)
        for number, total in enumerate(totals[1:], start=1):
            larger = builder.fcmp_ordered(">", total, largest)
            taken = builder.select(larger, ir.Constant(_bytes(emit), [number] * emit.lanes), taken)
            largest = emit.largest(largest, total)
        emit.store(self.finished(largest, places[0]), self.outputs.y, places[0])
        place = _choice(emit, self.choices, builder.add(builder.mul(row, self.count), self.tile))
        builder.store(taken, place, align=1)


def emit_unpool(module: ir.Module, name: str, lanes: int) -> None:
    """name(rows, delta, row_stride, choices, y, y_stride, count, from, to): the gradient before a pool.

    y[r·y_stride + to[4t + v] ...] = delta[r·row_stride + from[t] ...] in the lanes whose choice, which lies as
    `choosing_product` leaves it, is v; else 0. For rows r, tiles t < count and the vectors v < 4 of each.
    """
    emit = Emitter.begin(module, name, [INT64, POINTER, INT64, POINTER, POINTER, INT64, INT64, *[POINTER] * 2], lanes)
    rows, delta, row_stride, choices, y, y_stride, count, origins, goals = emit.function.args
    builder = emit.builder
    with emit.loop(i64(0), rows) as row:
        begin = emit.at(delta, builder.mul(row.index, row_stride))
        goal = emit.at(y, builder.mul(row.index, y_stride))
        first = builder.mul(row.index, count)
        with emit.loop(i64(0), count) as tile:
            own = emit.load(begin, emit.number(origins, tile.index), emit.vector)
            parts = parts_of_pooled(emit, own, choices, builder.add(first, tile.index))
            for number, part in enumerate(parts):
                place = builder.add(builder.mul(tile.index, i64(TAKEN)), i64(number))
                emit.store(part, goal, emit.number(goals, place))
    emit.end()


def parts_of_pooled(emit: Emitter, delta: ir.Value, choices: ir.Value, number: ir.Value) -> list[ir.Value]:
    """The gradient of the vectors from that of their largest; `number` says which vector of choices is theirs."""
    taken = emit.builder.load(_choice(emit, choices, number), typ=_bytes(emit), align=1)
    parts = []
    for position in range(TAKEN):
        own = emit.builder.icmp_signed("==", taken, ir.Constant(_bytes(emit), [position] * emit.lanes))
        parts.append(emit.builder.select(own, delta, emit.zeros()))
    return parts


def _bytes(emit: Emitter) -> ir.VectorType:
    return ir.VectorType(INT8, emit.lanes)


def _choice(emit: Emitter, choices: ir.Value, number: ir.Value) -> ir.Value:
    """The address of a vector of choices."""
    return emit.builder.gep(choices, [emit.builder.mul(number, i64(emit.lanes))], source_etype=INT8)


UNPOOL = Kernel("unpool", emit_unpool)
