"""Copies, zeros and elementwise arithmetic on the activations of convolutions, as machine code."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from llvmlite import ir

from tombola.kernels.compiler import Kernel
from tombola.kernels.emit import FLOAT, INT64, POINTER, Emitter, i64

FEW = 4
"""Floats that are taken together where a row has no whole vector left: rows of small images are hardly more."""


def emit_copy_rows(module: ir.Module, name: str, lanes: int) -> None:
    """name(channels, height, width, x, x_plane, x_pitch, y, y_plane, y_pitch): an image in another layout.

    y[c·y_plane + r·y_pitch + j] = x[c·x_plane + r·x_pitch + j] for j < width. Nothing else is read or written. x and y
    have no memory in common.
    """
    arguments = [INT64, INT64, INT64, POINTER, INT64, INT64, POINTER, INT64, INT64]
    emit = Emitter.begin(module, name, arguments, lanes)
    channels, height, width, x, x_plane, x_pitch, y, y_plane, y_pitch = emit.function.args
    builder = emit.builder
    rows, columns = one_long_row(emit, height, width, [x_pitch, y_pitch])
    with emit.loop(i64(0), channels) as channel:
        source = emit.at(x, builder.mul(channel.index, x_plane))
        goal = emit.at(y, builder.mul(channel.index, y_plane))
        with emit.loop(i64(0), rows) as row:
            own, there = builder.mul(row.index, x_pitch), builder.mul(row.index, y_pitch)
            begin: ir.Value = i64(0)
            for kind in _kinds(lanes):
                size = kind.count if isinstance(kind, ir.VectorType) else 1
                end = builder.and_(columns, i64(-size))
                with emit.loop(begin, end, step=size) as at:
                    found = emit.load(source, builder.add(own, at.index), kind)
                    emit.store(found, goal, builder.add(there, at.index))
                begin = end
    emit.end()


def one_long_row(
    emit: Emitter, height: ir.Value, width: ir.Value, pitches: Sequence[ir.Value]
) -> tuple[ir.Value, ir.Value]:
    """The height and width to go through: where there is nothing between rows, all of them are one."""
    builder = emit.builder
    gapless = functools.reduce(builder.and_, [builder.icmp_signed("==", pitch, width) for pitch in pitches])
    long = builder.mul(height, width)
    return builder.select(gapless, i64(1), height), builder.select(gapless, long, width)


def _kinds(lanes: int) -> list[ir.Type]:
    """What a row is taken apart into: whole vectors, a few floats, single ones."""
    return [*(ir.VectorType(FLOAT, size) for size in sorted({lanes, FEW}, reverse=True)), FLOAT]


def emit_clear(module: ir.Module, name: str, lanes: int) -> None:
    """name(count, y): y[i] = 0 for i < count."""
    emit = Emitter.begin(module, name, [INT64, POINTER], lanes)
    count, y = emit.function.args
    whole = emit.builder.and_(count, i64(-lanes))
    _clear(emit, y, whole)
    with emit.loop(whole, count) as single:
        emit.store(ir.Constant(FLOAT, 0.0), y, single.index)
    emit.end()


def emit_clear_border(module: ir.Module, name: str, lanes: int) -> None:
    """name(channels, y, plane, rows, row_floats, border_rows, border_floats): zeros around every channel of a panel.

    A channel's `rows` rows of `row_floats` floats follow one another, channels lie `plane` floats apart. Its first and
    last `border_rows` rows become 0, and of every row the first and last `border_floats` floats. These two and
    `row_floats` are multiples of `lanes`, as in a `windows.Panel`; the border is less than half of either side.
    """
    emit = Emitter.begin(module, name, [INT64, POINTER, *[INT64] * 5], lanes)
    channels, y, plane, rows, row_floats, border_rows, border_floats = emit.function.args
    builder = emit.builder
    edge = builder.mul(border_rows, row_floats)
    last = builder.sub(rows, border_rows)
    with emit.loop(i64(0), channels) as channel:
        own = emit.at(y, builder.mul(channel.index, plane))
        _clear(emit, own, edge)
        _clear(emit, emit.at(own, builder.mul(last, row_floats)), edge)
        with emit.loop(border_rows, last) as row:
            begin = emit.at(own, builder.mul(row.index, row_floats))
            _clear(emit, begin, border_floats)
            _clear(emit, emit.at(begin, builder.sub(row_floats, border_floats)), border_floats)
    emit.end()


def _clear(emit: Emitter, y: ir.Value, count: ir.Value) -> None:
    """Zeros, as many as are whole vectors."""
    with emit.loop(i64(0), count, step=emit.lanes) as group:
        emit.store(emit.zeros(), y, group.index)


@functools.cache
def combine(add: bool, relu: bool) -> Kernel:
    """The kernel name(channels, count, x, y, stride, scale, shift, other): a normalisation and what follows it.

    For every channel c and i < count, a multiple of `lanes`: y[c·stride + i] = x[c·stride + i] · scale[c] + shift[c],
    plus other[c·stride + i] where `add`, then max(·, 0) where `relu`, which leaves NaN. `other` is not looked at
    without `add`. Any of x, y and `other` may be the same memory, from the same float on; they may not overlap in
    another way, and `scale` and `shift` not with y.
    """

    def emit(module: ir.Module, name: str, lanes: int) -> None:
        emit = Emitter.begin(module, name, [INT64, INT64, POINTER, POINTER, INT64, *[POINTER] * 3], lanes)
        channels, count, x, y, stride, scale, shift, other = emit.function.args
        for argument in (x, y, other):
            argument.attributes.discard("noalias")  # in place is allowed
        builder = emit.builder
        with emit.loop(i64(0), channels) as channel:
            base = builder.mul(channel.index, stride)
            factor, constant = (emit.broadcast(emit.load(table, channel.index, FLOAT)) for table in (scale, shift))
            with emit.loop(i64(0), count, step=lanes) as group:
                at = builder.add(base, group.index)
                found = emit.fma(emit.load(x, at, emit.vector), factor, constant)
                if add:
                    found = builder.fadd(found, emit.load(other, at, emit.vector))
                emit.store(emit.maximum(found, emit.zeros()) if relu else found, y, at)
        emit.end()

    return Kernel(f"combine{'_add' if add else ''}{'_relu' if relu else ''}", emit)


COPY_ROWS = Kernel("copy_rows", emit_copy_rows, vectorise=False)  # what is left of a row is too short for vectors
CLEAR = Kernel("clear", emit_clear)
CLEAR_BORDER = Kernel("clear_border", emit_clear_border)
