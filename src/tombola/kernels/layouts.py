"""Between rows of examples and panels: feature by feature, a panel of examples innermost.

`to_panel` reads (examples, features) and writes (features, width); `from_panel` is its inverse. Both go square by
square: as many vectors as a vector has lanes, transposed in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from tombola.kernels.compiler import Kernel
from tombola.kernels.emit import FLOAT, INT64, POINTER, Emitter, i64

RowOf = Callable[[ir.Value], ir.Value]
"""The row of x in which an example lies."""


def emit_to_panel(module: ir.Module, name: str, lanes: int) -> None:
    """name(count, features, x, y, width): y[f·width + e] = x[e·features + f] for e < count, 0 for count <= e < width.

    `width` is the least multiple of `lanes` that holds `count` examples.
    """
    emit = Emitter.begin(module, name, [INT64, INT64, POINTER, POINTER, INT64], lanes)
    count, features, x, y, width = emit.function.args
    _to_panel(emit, (count, features, width), x, y, lambda example: example)
    emit.end()


def emit_gather_panel(module: ir.Module, name: str, lanes: int) -> None:
    """name(positions, count, features, x, y, width): to_panel of the examples x[positions[e]], e < count."""
    emit = Emitter.begin(module, name, [POINTER, INT64, INT64, POINTER, POINTER, INT64], lanes)
    positions, count, features, x, y, width = emit.function.args
    _to_panel(emit, (count, features, width), x, y, lambda example: emit.number(positions, example, INT64))
    emit.end()


def _to_panel(emit: Emitter, sizes: Sequence[ir.Value], x: ir.Value, y: ir.Value, row_of: RowOf) -> None:
    """Writes the panel y of `sizes` = (count, features, width); example e is row `row_of(e)` of x."""
    count, features, width = sizes
    builder, lanes = emit.builder, emit.lanes
    last = builder.sub(count, i64(1))
    whole = builder.and_(features, i64(-lanes))

    def start(example: ir.Value) -> ir.Value:
        """Where an example begins; beyond the last one, where the last one does."""
        return builder.mul(row_of(emit.least(example, last)), features)

    with emit.loop(i64(0), width, step=lanes) as example:
        lines = [builder.add(example.index, i64(line)) for line in range(lanes)]
        starts = [start(line) for line in lines]
        inside = [builder.icmp_signed("<", line, count) for line in lines]
        with emit.loop(i64(0), whole, step=lanes) as feature:
            square = [emit.load(x, builder.add(begin, feature.index), emit.vector) for begin in starts]
            square = [builder.select(real, line, emit.zeros()) for real, line in zip(inside, square, strict=True)]
            for line, turned in enumerate(_transposed(emit, square)):
                at = builder.add(builder.mul(builder.add(feature.index, i64(line)), width), example.index)
                emit.store(turned, y, at)
    with emit.loop(whole, features) as feature, emit.loop(i64(0), width) as example:
        value = emit.load(x, builder.add(start(example.index), feature.index), FLOAT)
        real = builder.icmp_signed("<", example.index, count)
        value = builder.select(real, value, ir.Constant(FLOAT, 0.0))
        emit.store(value, y, builder.add(builder.mul(feature.index, width), example.index))


def emit_from_panel(module: ir.Module, name: str, lanes: int) -> None:
    """name(count, features, x, width, y): y[e·features + f] = x[f·width + e] for e < count.

    `width` is a multiple of `lanes` that holds `count` examples."""
    emit = Emitter.begin(module, name, [INT64, INT64, POINTER, INT64, POINTER], lanes)
    count, features, x, width, y = emit.function.args
    builder = emit.builder
    whole = builder.and_(features, i64(-lanes))
    with emit.loop(i64(0), count, step=lanes) as example, emit.loop(i64(0), whole, step=lanes) as feature:
        square = []
        for line in range(lanes):
            at = builder.add(builder.mul(builder.add(feature.index, i64(line)), width), example.index)
            square.append(emit.load(x, at, emit.vector))
        for line, turned in enumerate(_transposed(emit, square)):
            row = builder.add(example.index, i64(line))
            with builder.if_then(builder.icmp_signed("<", row, count)):
                emit.store(turned, y, builder.add(builder.mul(row, features), feature.index))
    with emit.loop(i64(0), count) as example, emit.loop(whole, features) as feature:
        value = emit.load(x, builder.add(builder.mul(feature.index, width), example.index), FLOAT)
        emit.store(value, y, builder.add(builder.mul(example.index, features), feature.index))
    emit.end()


def _transposed(emit: Emitter, square: list[ir.Value]) -> list[ir.Value]:
    """A square of vectors, transposed: at every distance 1, 2, 4, ... blocks off the diagonal change places."""
    lanes, distance = emit.lanes, 1
    while distance < lanes:
        turned = list(square)
        for line in range(lanes):
            if line & distance:
                continue
            above, below = square[line], square[line + distance]
            first = [j if not j & distance else lanes + j - distance for j in range(lanes)]
            second = [j + distance if not j & distance else lanes + j for j in range(lanes)]
            turned[line] = emit.shuffled(above, below, first)
            turned[line + distance] = emit.shuffled(above, below, second)
        square, distance = turned, 2 * distance
    return square


TO_PANEL = Kernel("to_panel", emit_to_panel)
GATHER_PANEL = Kernel("gather_panel", emit_gather_panel)
FROM_PANEL = Kernel("from_panel", emit_from_panel)
