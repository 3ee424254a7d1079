"""Pools as machine code: the largest or the mean of the vectors that a window sees, and the mean of whole images.

Where vectors lie is read from tables, as in `tiles`, so that one kernel serves every layout and geometry.
"""

from __future__ import annotations

import functools
from enum import StrEnum

from llvmlite import ir

from tombola.kernels.compiler import Kernel
from tombola.kernels.copies import FEW, one_long_row
from tombola.kernels.emit import FLOAT, INT64, POINTER, Emitter, i64


class PoolKind(StrEnum):
    """What a pool makes of a window."""

    MAX = "max"
    MEAN = "mean"


@functools.cache
def pool(kind: PoolKind) -> Kernel:
    """The kernel name(channels, x, x_stride, y, y_stride, count, taps, from, to, scale).

    For every channel c and each of `count` outputs p, with a vector of `lanes` floats of x for each of its `taps`, at
    least one, x[c·x_stride + from[p·taps + t] ...]: y[c·y_stride + to[p] ...] = the largest of them for MAX, NaN where
    one is NaN, and (Σ_t) · scale[p] for MEAN. `from` and `to` are of 32 bits and count floats; `scale` has a float for
    each output, and MAX does not look at it. x and y have no memory in common. MAX of one tap copies vectors.
    """

    def emit(module: ir.Module, name: str, lanes: int) -> None:
        arguments = [INT64, POINTER, INT64, POINTER, INT64, INT64, INT64, *[POINTER] * 3]
        emit = Emitter.begin(module, name, arguments, lanes)
        channels, x, x_stride, y, y_stride, count, taps, origins, goals, scale = emit.function.args
        builder = emit.builder
        with emit.loop(i64(0), channels) as channel:
            begin = emit.at(x, builder.mul(channel.index, x_stride))
            goal = emit.at(y, builder.mul(channel.index, y_stride))
            with emit.loop(i64(0), count) as one:
                first = builder.mul(one.index, taps)
                last = builder.add(first, taps)
                found = emit.load(begin, emit.number(origins, first), emit.vector)
                with emit.loop(builder.add(first, i64(1)), last, [found]) as tap:
                    other = emit.load(begin, emit.number(origins, tap.index), emit.vector)
                    both = emit.largest if kind is PoolKind.MAX else builder.fadd
                    tap.next[0] = both(tap.values[0], other)
                total = tap.values[0]
                if kind is PoolKind.MEAN:
                    total = builder.fmul(total, emit.broadcast(emit.load(scale, one.index, FLOAT)))
                emit.store(total, goal, emit.number(goals, one.index))
        emit.end()

    return Kernel(f"pool_{kind}", emit)


def emit_plane_means(module: ir.Module, name: str, lanes: int) -> None:
    """name(channels, x, x_stride, height, width, pitch, y): the mean of every channel of one example.

    y[c] = (Σ x[c·x_stride + r·pitch + j] over r < height, j < width) / (height · width). Nothing else is read.
    """
    emit = Emitter.begin(module, name, [INT64, POINTER, INT64, INT64, INT64, INT64, POINTER], lanes)
    channels, x, x_stride, height, width, pitch, y = emit.function.args
    builder = emit.builder
    size = builder.sitofp(builder.mul(height, width), FLOAT)
    rows, columns = one_long_row(emit, height, width, [pitch])
    with emit.loop(i64(0), channels) as channel:
        plane = emit.at(x, builder.mul(channel.index, x_stride))
        with emit.loop(i64(0), rows, [emit.zeros(), ir.Constant(FLOAT, 0.0)]) as row:
            begin = emit.at(plane, builder.mul(row.index, pitch))
            row.next[:] = _sums_of_row(emit, begin, columns, row.values[0], row.values[1])
        total = builder.fadd(emit.sum_of_lanes(row.values[0]), row.values[1])
        emit.store(builder.fdiv(total, size), y, channel.index)
    emit.end()


def _sums_of_row(emit: Emitter, row: ir.Value, width: ir.Value, sums: ir.Value, rest: ir.Value) -> list[ir.Value]:
    """A vector and a single sum that together take in a row: by whole vectors, by a few floats, one by one."""
    builder = emit.builder
    whole = builder.and_(width, i64(-emit.lanes))
    with emit.loop(i64(0), whole, [sums], step=emit.lanes) as group:
        group.next[0] = builder.fadd(group.values[0], emit.load(row, group.index, emit.vector))
    few = builder.and_(width, i64(-FEW))
    small = ir.VectorType(FLOAT, FEW)
    filled = [min(lane, FEW) for lane in range(emit.lanes)]  # zeros behind the few
    with emit.loop(whole, few, [group.values[0]], step=FEW) as part:
        own = emit.shuffled(emit.load(row, part.index, small), ir.Constant(small, [0.0] * FEW), filled)
        part.next[0] = builder.fadd(part.values[0], own)
    with emit.loop(few, width, [rest]) as single:
        single.next[0] = builder.fadd(single.values[0], emit.load(row, single.index, FLOAT))
    return [part.values[0], single.values[0]]


PLANE_MEANS = Kernel("plane_means", emit_plane_means)
