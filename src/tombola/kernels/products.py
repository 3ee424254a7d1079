"""Sparse matrix × panel of examples, as machine code.

Activations lie feature by feature, a panel of examples innermost. A row of the matrix keeps its sums in registers, and
for every nonzero adds value · (the panel of one input feature). `tiles` has the same product at many places.
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
MOST_SUMS = 8
"""Registers of sums that a row has at most; with as many again for inputs all machines have them."""


class Epilogue(IntEnum):
    """What happens to a sum before it is stored: nothing, max(·, 0), 0 where the gate is not above 0, plus the gate."""

    NONE = 0
    RELU = 1
    GATE = 2
    ADD = 3
    ADD_RELU = 4


@functools.cache
def panel_product(first: bool, epilogue: Epilogue) -> Kernel:
    """The kernel name(rows, starts, columns, values, bias, x, y, stride, width, gate).

    For every row r, `width` floats wide (a multiple of `lanes`), with k from starts[r] to starts[r+1]:
    y[r·stride ...] = (bias[r] if `first` else y[r·stride ...]) + Σ_k values[k] · x[columns[k]·stride ...], then the
    epilogue. The panel `gate` lies like y; NONE and RELU do not look at it.
    """

    def emit(module: ir.Module, name: str, lanes: int) -> None:
        emit = Emitter.begin(module, name, [INT64, *[POINTER] * 6, INT64, INT64, POINTER], lanes)
        rows, starts, columns, values, bias, x, y, stride, width, gate = emit.function.args
        matrix = Matrix(rows, starts, columns, values, bias)
        product = Product(emit, matrix, stride, Outputs(y, stride, gate), first, epilogue)
        builder = emit.builder

        def chunk_of(start: ir.Value, tiles: int) -> None:
            places = [builder.add(start, i64(tile * lanes)) for tile in range(tiles)]
            product.rows([emit.at(x, place) for place in places], places)

        whole = builder.mul(builder.sdiv(width, i64(TILES * lanes)), i64(TILES * lanes))
        with emit.loop(i64(0), whole, step=TILES * lanes) as chunk:
            chunk_of(chunk.index, TILES)
        with emit.loop(whole, width, step=lanes) as chunk:
            chunk_of(chunk.index, 1)
        emit.end()

    return Kernel(f"panel_product_{'fresh' if first else 'added'}_{epilogue.name.lower()}", emit)


@dataclass(frozen=True)
class Matrix:
    """Of a kernel's arguments those that are the sparse matrix: a block (`packing.Block`), its values and biases."""

    rows: ir.Value
    starts: ir.Value
    columns: ir.Value
    values: ir.Value
    bias: ir.Value


@dataclass(frozen=True)
class Outputs:
    """Where sums go: row r begins at y[r·stride]; the gate lies likewise."""

    y: ir.Value
    stride: ir.Value
    gate: ir.Value


@dataclass(frozen=True)
class Product:
    """What is made once for each form of a kernel. Input column c lies `column_stride` · c floats from its pointer."""

    emit: Emitter
    matrix: Matrix
    column_stride: ir.Value
    outputs: Outputs
    first: bool
    epilogue: Epilogue
    registers: int = 1
    """That a vector fills."""
    pooled: bool = False
    """Only the largest of a tile's vectors is stored, at the first of its places."""

    def rows(self, inputs: Sequence[ir.Value], places: Sequence[ir.Value], before: Outputs | None = None) -> None:
        """The product of all rows with as many vectors as there are `inputs`, which point to those of column 0.

        `places` say where the vectors go in a row of the outputs; one place where they are pooled. Sums that go on,
        rather than begin with the bias, are those at the outputs, or those that lie one after the other in `before`.
        """
        emit = self.emit
        builder = emit.builder
        with emit.loop(i64(0), self.matrix.rows) as row:
            base = builder.mul(row.index, self.outputs.stride)
            own = [builder.add(base, place) for place in places]
            begin, end = emit.range_of(self.matrix.starts, row.index)
            if self.first:
                sums = [emit.broadcast(emit.load(self.matrix.bias, row.index, FLOAT))] * len(inputs)
            elif before is not None:
                start = builder.mul(row.index, before.stride)
                ends = [builder.add(start, i64(tile * emit.lanes)) for tile in range(len(inputs))]
                sums = [emit.load(before.y, end, emit.vector) for end in ends]
            else:
                sums = [emit.load(self.outputs.y, place, emit.vector) for place in own]
            self.store(self.sum_of_nonzeros(begin, end, inputs, sums), own, row.index)

    def store(self, totals: Sequence[ir.Value], places: Sequence[ir.Value], row: ir.Value) -> None:
        """The sums of a row, to their places."""
        if self.pooled:
            totals = [functools.reduce(self.emit.largest, totals)]
        for total, place in zip(totals, places, strict=True):
            self.emit.store(self.finished(total, place), self.outputs.y, place)

    def sum_of_nonzeros(
        self, begin: ir.Value, end: ir.Value, inputs: Sequence[ir.Value], sums: Sequence[ir.Value]
    ) -> list[ir.Value]:
        """`sums` plus value · inputs of every nonzero. Few tiles take turns over several chains of sums."""
        emit = self.emit
        builder = emit.builder
        tiles = len(sums)
        chains = max(1, (TILES if self.registers == 1 else MOST_SUMS) // (tiles * self.registers))
        whole = builder.add(begin, builder.and_(builder.sub(end, begin), i64(-chains)))
        with emit.loop(begin, whole, [*sums, *[emit.zeros()] * (tiles * (chains - 1))], step=chains) as together:
            for chain in range(chains):
                own = slice(chain * tiles, (chain + 1) * tiles)
                nonzero = builder.add(together.index, i64(chain))
                together.next[own] = self.with_nonzero(nonzero, inputs, together.values[own])
        totals = together.values[:tiles]
        for other in range(tiles, tiles * chains):
            totals[other % tiles] = builder.fadd(totals[other % tiles], together.values[other])
        if chains == 1:
            return totals
        with emit.loop(whole, end, totals) as rest:
            rest.next[:] = self.with_nonzero(rest.index, inputs, rest.values)
        return rest.values

    def with_nonzero(self, nonzero: ir.Value, inputs: Sequence[ir.Value], totals: Sequence[ir.Value]) -> list[ir.Value]:
        """The sums with one nonzero more."""
        emit = self.emit
        at = emit.builder.mul(emit.number(self.matrix.columns, nonzero, INT16), self.column_stride)
        value = emit.broadcast(emit.load(self.matrix.values, nonzero, FLOAT))
        vectors = [emit.load(pointer, at, emit.vector) for pointer in inputs]
        return [emit.fma(value, vector, total) for vector, total in zip(vectors, totals, strict=True)]

    def finished(self, total: ir.Value, place: ir.Value) -> ir.Value:
        """A vector of sums through the epilogue."""
        emit, epilogue = self.emit, self.epilogue
        if epilogue in (Epilogue.ADD, Epilogue.ADD_RELU):
            total = emit.builder.fadd(total, emit.load(self.outputs.gate, place, emit.vector))
        if epilogue in (Epilogue.RELU, Epilogue.ADD_RELU):
            return emit.maximum(total, emit.zeros())
        if epilogue is Epilogue.GATE:
            above = emit.builder.fcmp_unordered(">", emit.load(self.outputs.gate, place, emit.vector), emit.zeros())
            return emit.builder.select(above, total, emit.zeros())
        return total
