"""Sparse matrix × panel of examples, as machine code.

Activations lie feature by feature, a panel of examples innermost. A row of the matrix keeps its sums in registers, and
for every nonzero adds value · (the panel of one input feature).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
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


@functools.cache
def panel_product(first: bool, epilogue: Epilogue) -> Kernel:
    """The kernel name(rows, starts, columns, values, bias, x, y, stride, width, gate).

    For every row r, `width` floats wide (a multiple of `lanes`), with k from starts[r] to starts[r+1]:
    y[r·stride ...] = (bias[r] if `first` else y[r·stride ...]) + Σ_k values[k] · x[columns[k]·stride ...], then the
    epilogue. The panel `gate` lies like y; only GATE looks at it.
    """

    def emit(module: ir.Module, name: str, lanes: int) -> None:
        emit = Emitter.begin(module, name, [INT64, *[POINTER] * 6, INT64, INT64, POINTER], lanes)
        product = _Product(emit, first, epilogue)
        width, builder = emit.function.args[8], emit.builder
        whole = builder.mul(builder.sdiv(width, i64(TILES * lanes)), i64(TILES * lanes))
        with emit.loop(i64(0), whole, step=TILES * lanes) as chunk:
            product.rows_times_chunk(chunk.index, TILES)
        with emit.loop(whole, width, step=lanes) as chunk:
            product.rows_times_chunk(chunk.index, 1)
        emit.end()

    return Kernel(f"panel_product_{'fresh' if first else 'added'}_{epilogue.name.lower()}", emit)


@dataclass(frozen=True)
class _Product:
    """What is made once for each form of the kernel."""

    emit: Emitter
    first: bool
    epilogue: Epilogue

    def rows_times_chunk(self, chunk: ir.Value, tiles: int) -> None:
        """The product for the `tiles · lanes` examples from `chunk` on."""
        emit = self.emit
        rows, starts, _, _, bias, _, y, stride, _, gate = emit.function.args
        builder = emit.builder
        with emit.loop(i64(0), rows) as row:
            base = builder.add(builder.mul(row.index, stride), chunk)
            begin, end = emit.range_of(starts, row.index)
            places = [builder.add(base, i64(tile * emit.lanes)) for tile in range(tiles)]
            if self.first:
                sums = [emit.broadcast(emit.load(bias, row.index, FLOAT))] * tiles
            else:
                sums = [emit.load(y, place, emit.vector) for place in places]
            for total, place in zip(self.sum_of_nonzeros(begin, end, chunk, sums), places, strict=True):
                emit.store(self.finished(total, gate, place), y, place)

    def sum_of_nonzeros(
        self, begin: ir.Value, end: ir.Value, chunk: ir.Value, sums: Sequence[ir.Value]
    ) -> list[ir.Value]:
        """`sums` plus value · inputs of every nonzero. Few tiles take turns over several chains of sums."""
        emit = self.emit
        builder = emit.builder
        tiles = len(sums)
        chains = TILES // tiles
        whole = builder.add(begin, builder.and_(builder.sub(end, begin), i64(-chains)))
        with emit.loop(begin, whole, [*sums, *[emit.zeros()] * (tiles * (chains - 1))], step=chains) as together:
            for chain in range(chains):
                own = slice(chain * tiles, (chain + 1) * tiles)
                nonzero = builder.add(together.index, i64(chain))
                together.next[own] = self.with_nonzero(nonzero, chunk, together.values[own])
        totals = together.values[:tiles]
        for other in range(tiles, tiles * chains):
            totals[other % tiles] = builder.fadd(totals[other % tiles], together.values[other])
        if chains == 1:
            return totals
        with emit.loop(whole, end, totals) as rest:
            rest.next[:] = self.with_nonzero(rest.index, chunk, rest.values)
        return rest.values

    def with_nonzero(self, nonzero: ir.Value, chunk: ir.Value, totals: Sequence[ir.Value]) -> list[ir.Value]:
        """The sums with one nonzero more."""
        emit = self.emit
        _, _, columns, values, _, x, _, stride, *_ = emit.function.args
        builder = emit.builder
        at = builder.add(builder.mul(emit.number(columns, nonzero, INT16), stride), chunk)
        value = emit.broadcast(emit.load(values, nonzero, FLOAT))
        inputs = [emit.load(x, builder.add(at, i64(t * emit.lanes)), emit.vector) for t in range(len(totals))]
        return [emit.fma(value, vector, total) for vector, total in zip(inputs, totals, strict=True)]

    def finished(self, total: ir.Value, gate: ir.Value, place: ir.Value) -> ir.Value:
        """A vector of sums through the epilogue."""
        emit = self.emit
        if self.epilogue is Epilogue.RELU:
            return emit.maximum(total, emit.zeros())
        if self.epilogue is Epilogue.GATE:
            above = emit.builder.fcmp_unordered(">", emit.load(gate, place, emit.vector), emit.zeros())
            return emit.builder.select(above, total, emit.zeros())
        return total
