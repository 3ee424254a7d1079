"""Sparse matrix × one vector, as machine code: for a batch of one.

Scalar on purpose: with nonzeros at arbitrary places gathering lanes costs more than it brings.
"""

from __future__ import annotations

from llvmlite import ir

from tombola.kernels.compiler import Kernel
from tombola.kernels.emit import FLOAT, INT16, INT32, INT64, POINTER, Emitter, i64

CHAINS = 4
"""Sums that run side by side, so that no addition waits for the one before."""


def emit_rows_times_vector(module: ir.Module, name: str, lanes: int) -> None:
    """name(rows, starts, columns, values, bias, x, y, first, relu): y = (first ? bias : y) + W x, row by row.

    Then max(·, 0) of it where `relu`.
    """
    emit = Emitter.begin(module, name, [INT64, *[POINTER] * 6, INT64, INT64], lanes)
    rows, starts, columns, values, bias, x, y, first, relu = emit.function.args
    builder = emit.builder
    is_first = builder.icmp_signed("!=", first, i64(0))
    with_relu = builder.icmp_signed("!=", relu, i64(0))
    zero = ir.Constant(FLOAT, 0.0)

    def product(at: ir.Value, total: ir.Value) -> ir.Value:
        column = emit.number(columns, at, INT16)
        return emit.fma(emit.load(values, at, FLOAT), emit.load(x, column, FLOAT), total)

    with emit.loop(i64(0), rows) as row:
        begin, end = emit.range_of(starts, row.index)
        whole = builder.add(begin, builder.and_(builder.sub(end, begin), i64(-CHAINS)))
        before = builder.select(is_first, emit.load(bias, row.index, FLOAT), emit.load(y, row.index, FLOAT))
        with emit.loop(begin, whole, [before] + [zero] * (CHAINS - 1), step=CHAINS) as together:
            for chain in range(CHAINS):
                at = builder.add(together.index, i64(chain))
                together.next[chain] = product(at, together.values[chain])
        with emit.loop(whole, end, [together.values[0]]) as rest:
            rest.next[0] = product(rest.index, rest.values[0])
        total = rest.values[0]
        for chain in together.values[1:]:
            total = builder.fadd(total, chain)
        emit.store(builder.select(with_relu, emit.maximum(total, zero), total), y, row.index)
    emit.end()


def emit_columns_times_vector(module: ir.Module, name: str, lanes: int) -> None:
    """name(columns, rows, starts, row_numbers, values, bias, x, y, relu, live): y = bias + W x,
    column by column, and max(·, 0) of it where `relu`.

    The matrix is packed by columns: those of column c lie from starts[c] to starts[c + 1]. A column whose input is 0
    costs nothing, as after a ReLU or for the dark pixels of a digit: `live`, room for one 32-bit integer per column,
    takes the others first, without a branch that would be mispredicted.
    """
    emit = Emitter.begin(module, name, [INT64, INT64, *[POINTER] * 6, INT64, POINTER], lanes)
    columns, rows, starts, row_numbers, values, bias, x, y, relu, live = emit.function.args
    builder = emit.builder
    zero = ir.Constant(FLOAT, 0.0)
    with emit.loop(i64(0), rows) as row:
        emit.store(emit.load(bias, row.index, FLOAT), y, row.index)
    with emit.loop(i64(0), columns, [i64(0)]) as column:
        emit.store(builder.trunc(column.index, INT32), live, column.values[0])
        not_zero = builder.fcmp_unordered("!=", emit.load(x, column.index, FLOAT), zero)
        column.next[0] = builder.add(column.values[0], builder.zext(not_zero, INT64))
    with emit.loop(i64(0), column.values[0]) as place:
        number = emit.number(live, place.index, INT32)
        factor = emit.load(x, number, FLOAT)
        with emit.loop(*emit.range_of(starts, number)) as nonzero:
            row_at = emit.number(row_numbers, nonzero.index, INT16)
            total = emit.fma(emit.load(values, nonzero.index, FLOAT), factor, emit.load(y, row_at, FLOAT))
            emit.store(total, y, row_at)
    with builder.if_then(builder.icmp_signed("!=", relu, i64(0))), emit.loop(i64(0), rows) as row:
        emit.store(emit.maximum(emit.load(y, row.index, FLOAT), zero), y, row.index)
    emit.end()


ROWS_TIMES_VECTOR = Kernel("rows_times_vector", emit_rows_times_vector, vectorise=False)
COLUMNS_TIMES_VECTOR = Kernel("columns_times_vector", emit_columns_times_vector, vectorise=False)
