"""Sparse matrix × panel of examples, as machine code.

Activations lie feature by feature, a panel of examples innermost. A row of the matrix keeps its sums in registers, and
for every nonzero adds value · (the panel of one input feature).
"""

from __future__ import annotations

from enum import IntEnum

from llvmlite import ir

from tombola.kernels.compiler import Kernel
from tombola.kernels.emit import FLOAT, INT16, INT64, POINTER, Emitter, i64

TILES = 4
"""Vectors of sums that a row keeps in registers: enough additions in flight to hide the latency of one."""


class Epilogue(IntEnum):
    """What happens to a sum before it is stored: nothing, max(·, 0), or 0 where the gate is 0 or below."""

    NONE = 0
    RELU = 1
    GATE = 2


def emit_panel_product(module: ir.Module, name: str, lanes: int) -> None:
    """name(rows, starts, columns, values, bias, x, y, stride, width, first, epilogue, gate).

    For every row r, `width` floats wide (a multiple of `lanes`), with k from starts[r] to starts[r+1]:
    y[r·stride ...] = (first ? bias[r] : y[r·stride ...]) + Σ_k values[k] · x[columns[k]·stride ...], then the epilogue.
    The panel `gate` lies like y.
    """
    arguments = [INT64, *[POINTER] * 6, INT64, INT64, INT64, INT64, POINTER]
    emit = Emitter.begin(module, name, arguments, lanes)
    width, builder = emit.function.args[8], emit.builder
    whole = builder.mul(builder.sdiv(width, i64(TILES * lanes)), i64(TILES * lanes))
    with emit.loop(i64(0), whole, step=TILES * lanes) as chunk:
        _rows_times_chunk(emit, chunk.index, TILES)
    with emit.loop(whole, width, step=lanes) as chunk:
        _rows_times_chunk(emit, chunk.index, 1)
    emit.end()


def _rows_times_chunk(emit: Emitter, chunk: ir.Value, tiles: int) -> None:
    """The product for the `tiles · lanes` examples from `chunk` on."""
    rows, starts, _, _, bias, _, y, stride, _, first, _, _ = emit.function.args
    builder = emit.builder
    is_first = builder.icmp_signed("!=", first, i64(0))
    with emit.loop(i64(0), rows) as row:
        base = builder.add(builder.mul(row.index, stride), chunk)
        begin, end = emit.range_of(starts, row.index)
        constant = emit.broadcast(emit.load(bias, row.index, FLOAT))
        before = [emit.load(y, _tile(emit, base, tile), emit.vector) for tile in range(tiles)]
        sums = [builder.select(is_first, constant, already) for already in before]
        for tile, total in enumerate(_sum_of_nonzeros(emit, begin, end, chunk, sums)):
            _store(emit, total, _tile(emit, base, tile))


def _sum_of_nonzeros(
    emit: Emitter, begin: ir.Value, end: ir.Value, chunk: ir.Value, sums: list[ir.Value]
) -> list[ir.Value]:
    """`sums` plus value · inputs of every nonzero. Few tiles take turns over several chains of sums."""
    _, _, columns, values, _, x, _, stride, *_ = emit.function.args
    builder = emit.builder
    tiles = len(sums)
    chains = TILES // tiles

    def add(nonzero: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        at = builder.add(builder.mul(emit.number(columns, nonzero, INT16), stride), chunk)
        value = emit.broadcast(emit.load(values, nonzero, FLOAT))
        inputs = [emit.load(x, _tile(emit, at, tile), emit.vector) for tile in range(tiles)]
        return [emit.fma(value, vector, total) for vector, total in zip(inputs, totals, strict=True)]

    whole = builder.add(begin, builder.and_(builder.sub(end, begin), i64(-chains)))
    with emit.loop(begin, whole, [*sums, *[emit.zeros()] * (tiles * (chains - 1))], step=chains) as together:
        for chain in range(chains):
            own = slice(chain * tiles, (chain + 1) * tiles)
            together.next[own] = add(builder.add(together.index, i64(chain)), together.values[own])
    totals = together.values[:tiles]
    for other in range(tiles, tiles * chains):
        totals[other % tiles] = builder.fadd(totals[other % tiles], together.values[other])
    if chains == 1:
        return totals
    with emit.loop(whole, end, totals) as rest:
        rest.next[:] = add(rest.index, rest.values)
    return rest.values


def _store(emit: Emitter, total: ir.Value, at: ir.Value) -> None:
    """A finished vector of sums, through the epilogue. All but one of its three stores are cheap and overwritten."""
    y, epilogue, gate = (emit.function.args[number] for number in (6, 10, 11))
    builder = emit.builder
    emit.store(total, y, at)
    with builder.if_then(builder.icmp_signed("==", epilogue, i64(Epilogue.RELU))):
        emit.store(emit.maximum(total, emit.zeros()), y, at)
    with builder.if_then(builder.icmp_signed("==", epilogue, i64(Epilogue.GATE))):
        open_ = builder.fcmp_unordered(">", emit.load(gate, at, emit.vector), emit.zeros())
        emit.store(builder.select(open_, total, emit.zeros()), y, at)


def _tile(emit: Emitter, base: ir.Value, tile: int) -> ir.Value:
    return emit.builder.add(base, i64(tile * emit.lanes))


PANEL_PRODUCT = Kernel("panel_product", emit_panel_product)
