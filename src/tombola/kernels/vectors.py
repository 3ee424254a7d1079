"""Sparse matrix × one vector, as machine code: for a batch of one.

Sparse ones are scalar on purpose: with nonzeros at arbitrary places gathering lanes costs more than it brings.
"""

from __future__ import annotations

from llvmlite import ir

from tombola.kernels.compiler import Kernel
from tombola.kernels.emit import FLOAT, INT16, INT32, INT64, POINTER, Emitter, i64
from tombola.kernels.packing import CHUNK

COLUMNS_TOGETHER = 16
"""Columns whose chunks are listed before these are gone through."""
MOST_LANES = 16
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
    """name(columns, rows, starts, row_numbers, values, bias, x, y, relu, scratch): the same, column by column.

    The matrix is packed by columns, in chunks (`packing.in_chunks`): those of column c are starts[c] to starts[c + 1].
    A column whose input is 0 costs nothing, as after a ReLU or for the dark pixels of a digit. Columns are of any
    length, and a loop over each would end with a branch that nobody can predict; so the columns that count are listed
    first, then their chunks, and what is left is one loop over chunks of equal size. `scratch` has room for
    `columns_scratch(columns, rows)` numbers.
    """
    emit = Emitter.begin(module, name, [INT64, INT64, *[POINTER] * 6, INT64, POINTER], lanes)
    columns, rows, starts, row_numbers, values, bias, x, y, relu, scratch = emit.function.args
    builder = emit.builder
    chunks = emit.at(scratch, columns, INT32)
    room = builder.add(builder.mul(i64(COLUMNS_TOGETHER), _most_chunks(builder, rows)), i64(MOST_LANES))
    factors = emit.at(chunks, room)
    sums = emit.at(factors, room)
    _copy(emit, rows, bias, sums)
    live = _list_of_live(emit, columns, x, scratch)
    with emit.loop(i64(0), live, step=COLUMNS_TOGETHER) as group:
        end = emit.least(builder.add(group.index, i64(COLUMNS_TOGETHER)), live)
        with emit.loop(group.index, end, [i64(0)]) as place:
            column = emit.number(scratch, place.index)
            place.next[0] = _list_chunks(emit, emit.range_of(starts, column), place.values[0], chunks, factors, column)
        with emit.loop(i64(0), place.values[0]) as listed:
            factor = emit.load(factors, listed.index, FLOAT)
            first = builder.mul(emit.number(chunks, listed.index), i64(CHUNK))
            places = [builder.add(first, i64(number)) for number in range(CHUNK)]
            own = [emit.number(row_numbers, at, INT16) for at in places]  # all different, so all are read before
            before = [emit.load(sums, row, FLOAT) for row in own]
            for at, row, total in zip(places, own, before, strict=True):
                emit.store(emit.fma(emit.load(values, at, FLOAT), factor, total), sums, row)
    _copy_through(emit, rows, sums, y, relu)
    emit.end()


def emit_dense_columns_times_vector(module: ir.Module, name: str, lanes: int) -> None:
    """name(columns, rows, stride, matrix, bias, x, y, relu, scratch): y = bias + W x for a matrix with all its weights.

    Column c of W lies at matrix[c·stride ...], zeros behind its `rows` numbers; `stride` is a multiple of `lanes`.
    A column whose input is 0 costs nothing, so this is faster than a dense product where many inputs are 0. `scratch`
    has room for columns + stride numbers.
    """
    emit = Emitter.begin(module, name, [INT64, INT64, INT64, *[POINTER] * 4, INT64, POINTER], lanes)
    columns, rows, stride, matrix, bias, x, y, relu, scratch = emit.function.args
    builder = emit.builder
    sums = emit.at(scratch, columns)
    live = _list_of_live(emit, columns, x, scratch)
    begin: ir.Value = i64(0)
    for tiles in (8, 4, 2, 1):
        size = i64(tiles * lanes)
        end = builder.add(begin, builder.mul(builder.sdiv(builder.sub(stride, begin), size), size))
        with emit.loop(begin, end, step=tiles * lanes) as tile:
            with emit.loop(i64(0), live, [emit.zeros()] * tiles) as place:
                column = emit.number(scratch, place.index)
                factor = emit.broadcast(emit.load(x, column, FLOAT))
                first = builder.add(builder.mul(column, stride), tile.index)
                for number in range(tiles):
                    own = emit.load(matrix, builder.add(first, i64(number * lanes)), emit.vector)
                    place.next[number] = emit.fma(factor, own, place.values[number])
            for number, total in enumerate(place.values):
                emit.store(total, sums, builder.add(tile.index, i64(number * lanes)))
        begin = end
    _add_bias(emit, rows, sums, bias)
    _copy_through(emit, rows, sums, y, relu)
    emit.end()


def _add_bias(emit: Emitter, rows: ir.Value, sums: ir.Value, bias: ir.Value) -> None:
    whole = emit.builder.and_(rows, i64(-emit.lanes))
    with emit.loop(i64(0), whole, step=emit.lanes) as group:
        total, constant = (emit.load(base, group.index, emit.vector) for base in (sums, bias))
        emit.store(emit.builder.fadd(total, constant), sums, group.index)
    with emit.loop(whole, rows) as single:
        total, constant = (emit.load(base, single.index, FLOAT) for base in (sums, bias))
        emit.store(emit.builder.fadd(total, constant), sums, single.index)


def columns_scratch(columns: int, rows: int) -> int:
    """The numbers of scratch that `COLUMNS_TIMES_VECTOR` needs for a matrix (rows, columns)."""
    return columns + 2 * (COLUMNS_TOGETHER * -(-rows // CHUNK) + MOST_LANES) + rows + CHUNK


def _most_chunks(builder: ir.IRBuilder, rows: ir.Value) -> ir.Value:
    return builder.sdiv(builder.add(rows, i64(CHUNK - 1)), i64(CHUNK))


def _list_chunks(
    emit: Emitter,
    of_column: tuple[ir.Value, ir.Value],
    listed: ir.Value,
    chunks: ir.Value,
    factors: ir.Value,
    column: ir.Value,
) -> ir.Value:
    """Adds a column's chunks to the list, and beside each the column's input; returns how long the list is now."""
    begin, end = of_column
    builder = emit.builder
    x = emit.function.args[6]
    factor = emit.broadcast(emit.load(x, column, FLOAT))
    numbers = ir.Constant(ir.VectorType(INT32, emit.lanes), list(range(emit.lanes)))
    with emit.loop(begin, end, step=emit.lanes) as first:  # hardly ever twice
        at = builder.add(listed, builder.sub(first.index, begin))
        own = builder.add(numbers, emit.broadcast_integer(builder.trunc(first.index, INT32)))
        builder.store(own, emit.at(chunks, at, INT32), align=4)
        emit.store(factor, factors, at)
    return builder.add(listed, builder.sub(end, begin))


def _copy_through(emit: Emitter, count: ir.Value, source: ir.Value, sink: ir.Value, relu: ir.Value) -> None:
    """Copies `count` floats, max(·, 0) of them where the argument `relu` is not 0."""
    with emit.builder.if_else(emit.builder.icmp_signed("!=", relu, i64(0))) as (then, otherwise):
        with then:
            _copy(emit, count, source, sink, relu=True)
        with otherwise:
            _copy(emit, count, source, sink)


def _copy(emit: Emitter, count: ir.Value, source: ir.Value, sink: ir.Value, relu: bool = False) -> None:
    """Copies `count` floats, max(·, 0) of them where `relu`."""
    whole = emit.builder.and_(count, i64(-emit.lanes))
    with emit.loop(i64(0), whole, step=emit.lanes) as group:
        numbers = emit.load(source, group.index, emit.vector)
        emit.store(emit.maximum(numbers, emit.zeros()) if relu else numbers, sink, group.index)
    with emit.loop(whole, count) as single:
        number = emit.load(source, single.index, FLOAT)
        emit.store(emit.maximum(number, ir.Constant(FLOAT, 0.0)) if relu else number, sink, single.index)


def _list_of_live(emit: Emitter, columns: ir.Value, x: ir.Value, live: ir.Value) -> ir.Value:
    """Writes the numbers of the inputs that are not 0 to `live`; returns how many. Goes by whole vectors, then singly.

    A whole vector is written each time, at most where its own inputs are counted, so never behind the last column.
    """
    builder, lanes = emit.builder, emit.lanes
    whole = builder.and_(columns, i64(-lanes))
    numbers = ir.Constant(ir.VectorType(INT32, lanes), list(range(lanes)))
    with emit.loop(i64(0), whole, [i64(0)], step=lanes) as group:
        inputs = emit.load(x, group.index, emit.vector)
        not_zero = builder.fcmp_unordered("!=", inputs, emit.zeros())
        own = builder.add(numbers, emit.broadcast_integer(builder.trunc(group.index, INT32)))
        builder.store(emit.compressed(own, not_zero), emit.at(live, group.values[0], INT32), align=4)
        group.next[0] = builder.add(group.values[0], emit.count_true(not_zero))
    with emit.loop(whole, columns, [group.values[0]]) as single:
        emit.store(builder.trunc(single.index, INT32), live, single.values[0])
        not_zero = builder.fcmp_unordered("!=", emit.load(x, single.index, FLOAT), ir.Constant(FLOAT, 0.0))
        single.next[0] = builder.add(single.values[0], builder.zext(not_zero, INT64))
    return single.values[0]


ROWS_TIMES_VECTOR = Kernel("rows_times_vector", emit_rows_times_vector, vectorise=False)
DENSE_COLUMNS_TIMES_VECTOR = Kernel("dense_columns_times_vector", emit_dense_columns_times_vector, vectorise=False)
COLUMNS_TIMES_VECTOR = Kernel("columns_times_vector", emit_columns_times_vector, vectorise=False)
