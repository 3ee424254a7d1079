"""Copies of images in which windows become whole vectors, as machine code.

A convolution of one example wants vectors of neighbouring outputs. Shifted by a window's width, rows of an image are
not aligned, and with strides not even contiguous; so they are copied once, shifted and strided, and every nonzero
reads whole vectors. A table says where each piece of the copy comes from, and which of its floats are border.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from tombola.kernels.compiler import Kernel
from tombola.kernels.emit import FLOAT, INT32, INT64, POINTER, Emitter, i64
from tombola.kernels.windows import ImageLayout, Window

PIECES = (16, 8, 4)
"""Floats of a piece, of which the largest is taken that rows and planes are made of."""


TOGETHER = 4
"""Pieces of which the loop's own cost is shared."""


@functools.cache
def expand(piece: int, step: int, fill: float | None) -> Kernel:
    """The kernel name(channels, x, x_stride, y, y_stride, count, sources, inside).

    For every channel c and each of `count` pieces p, with j < `piece`: y[c·y_stride + p·piece + j] =
    x[c·x_stride + sources[p] + j·step] where bit j of inside[p] is set, else `fill`. Tables are of 32 bits. Without
    `fill` all is inside, and nobody looks. With a step of 2 or more what is not inside is read, too, up to step · piece
    floats from a source on.
    """

    def emit(module: ir.Module, name: str, lanes: int) -> None:
        emit = Emitter.begin(module, name, [INT64, POINTER, INT64, POINTER, INT64, INT64, POINTER, POINTER], lanes)
        channels, x, x_stride, y, y_stride, count, sources, inside = emit.function.args
        builder = emit.builder
        whole = builder.and_(count, i64(-TOGETHER))
        with emit.loop(i64(0), channels) as channel:
            begin = emit.at(x, builder.mul(channel.index, x_stride))
            goal = emit.at(y, builder.mul(channel.index, y_stride))

            def one(number: ir.Value, begin: ir.Value = begin, goal: ir.Value = goal) -> None:
                source = emit.number(sources, number)
                real = None if fill is None else _bits(emit, emit.load(inside, number, INT32), piece)
                found = _found(emit, begin, source, piece, step, real, fill or 0.0)
                emit.store(found, goal, builder.mul(number, i64(piece)))

            with emit.loop(i64(0), whole, step=TOGETHER) as some:
                for number in range(TOGETHER):
                    one(builder.add(some.index, i64(number)))
            with emit.loop(whole, count) as rest:
                one(rest.index)
        emit.end()

    outside = {None: "whole", 0.0: "zeros", -math.inf: "lowest"}[fill]
    return Kernel(f"expand_{piece}_{step}_{outside}", emit)


def _bits(emit: Emitter, number: ir.Value, count: int) -> ir.Value:
    """The lowest bits of a number as a vector."""
    few = emit.builder.trunc(number, ir.IntType(count))
    return emit.builder.bitcast(few, ir.VectorType(ir.IntType(1), count))


def _found(
    emit: Emitter, begin: ir.Value, source: ir.Value, piece: int, step: int, real: ir.Value | None, fill: float
) -> ir.Value:
    """begin[source + j·step] for j < piece, `fill` where `real` is not set."""
    vector, builder = ir.VectorType(FLOAT, piece), emit.builder
    outside = ir.Constant(vector, [fill] * piece)
    if step == 1 and real is not None:
        return emit.load_some(begin, source, real, outside)
    parts = [emit.load(begin, builder.add(source, i64(part * piece)), vector) for part in range(2 if step == 2 else 1)]
    found = parts[0]
    if step == 2:
        found = emit.shuffled(parts[0], parts[1], range(0, 2 * piece, 2))
    elif step > 2:
        for lane in range(1, piece):
            number = emit.load(begin, builder.add(source, i64(lane * step)), FLOAT)
            found = builder.insert_element(found, number, ir.Constant(INT32, lane))
    return found if real is None else builder.select(real, found, outside)


@dataclass(frozen=True)
class Expansion:
    """How an image is copied for a window: a kernel's tables, the floats of a channel's copy, the slack it reads in.

    `slack` floats before and behind the image are read, and have no influence.
    """

    piece: int
    step: int
    sources: NDArray[np.int32]
    inside: NDArray[np.int32]
    size: int
    slack: int

    @property
    def whole(self) -> bool:
        """Nothing is border."""
        return bool((self.inside == (1 << self.piece) - 1).all())


def all_windows(own: ImageLayout, window: Window, result: ImageLayout) -> Expansion:
    """For every position of the reach a plane like one of `result`: (reach rows, reach columns, plane)."""
    vertical, horizontal = window.reach
    rows = np.arange(result.plane // result.pitch + 1)
    shifts = [(row, column) for row in range(vertical) for column in range(horizontal)]
    planes = []
    for row, column in shifts:
        plane = _coordinates(own, window, rows, np.arange(result.pitch), row, column)
        plane[:, result.height :] = -1
        plane[:, :, result.width :] = -1
        planes.append(plane.reshape(2, -1)[:, : result.plane])
    whole = math.gcd(result.pitch, result.plane)  # no piece reaches into the next row or plane
    return _expansion(own, np.concatenate(planes, 1), whole, window.step[1])


def shifted_rows(own: ImageLayout, window: Window, result: ImageLayout) -> Expansion:
    """For every column of the reach all rows that windows see: (reach columns, rows, pitch of `result`)."""
    rows = np.arange(rows_seen(window, result))
    copies = []
    for column in range(window.reach[1]):
        upright = Window((1, 1), (1, window.step[1]), window.padding)
        copy = _coordinates(own, upright, rows, np.arange(result.pitch), 0, column)
        copy[:, :, result.width :] = -1
        copies.append(copy.reshape(2, -1))
    return _expansion(own, np.concatenate(copies, 1), result.pitch, window.step[1])


def rows_seen(window: Window, result: ImageLayout) -> int:
    """How many rows of the bordered inputs the windows of all outputs span."""
    return (result.height - 1) * window.step[0] + window.reach[0]


def _coordinates(
    own: ImageLayout, window: Window, rows: NDArray[np.int64], columns: NDArray[np.int64], row: int, column: int
) -> NDArray[np.int64]:
    """(2, rows, columns): which row and column of the image each output sees at a shift; -1 for the border."""
    down = rows * window.step[0] + row - window.padding[0]
    across = columns * window.step[1] + column - window.padding[1]
    down = np.where((down >= 0) & (down < own.height), down, -1)
    across = np.where((across >= 0) & (across < own.width), across, -1)
    return np.stack(np.broadcast_arrays(down[:, None], across[None, :])).copy()


def _expansion(own: ImageLayout, coordinates: NDArray[np.int64], whole: int, step: int) -> Expansion:
    """Tables from the coordinates (2, floats) of every float of a channel's copy, in pieces that divide `whole`."""
    piece = next(size for size in PIECES if whole % size == 0)
    down, across = coordinates.reshape(2, -1, piece)
    real = (down >= 0) & (across >= 0)
    inside = (real * (1 << np.arange(piece))).sum(1).astype(np.int32)
    # Where a piece begins follows from any of its floats that are inside.
    lane = real.argmax(1)
    first = np.take_along_axis(down * own.pitch + across, lane[:, None], 1)[:, 0] - lane * step
    sources = np.where(real.any(1), first, 0)
    # Loads of neighbouring floats leave out what is not inside.
    slack = 0 if step == 1 else max(0, -int(sources.min()), int(sources.max()) + step * piece - own.plane)
    return Expansion(piece, step, sources.astype(np.int32), inside, coordinates.shape[1], slack)
