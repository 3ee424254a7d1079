"""Sparse matrix × many vectors that lie anywhere, as machine code: convolutions in every layout.

A convolution is a sparse matrix (outputs) × (inputs that a window sees), the same at every position of the image.
Where the vectors of a position begin is read from a table, so that one kernel serves every layout and geometry:
vectors of examples at one position, or of positions of one example. As many are taken together as keep their sums in
registers.
"""

from __future__ import annotations

import functools

from llvmlite import ir

from tombola.kernels.compiler import Kernel
from tombola.kernels.emit import INT64, POINTER, Emitter, i64
from tombola.kernels.products import TILES, Epilogue, Matrix, Outputs, Product


@functools.cache
def tile_product(tiles: int, first: bool, epilogue: Epilogue, pooled: bool, registers: int = 1) -> Kernel:
    """The kernel name(rows, starts, columns, values, bias, x, column_stride, y, row_stride, count, from, to, gate).

    For each of `count` tiles, each of its vectors v < `tiles` and each row r, with k from starts[r] to starts[r+1]:
    y[r·row_stride + to[v] ...] = (bias[r] if `first` else y[the same]) + Σ_k values[k] · x[columns[k]·column_stride +
    from[v] ...], then the epilogue. `from` and `to` (32-bit, in floats) have `tiles` numbers for each tile. A tile may
    name a vector twice. `gate` lies like y. A vector fills `registers` vector registers.

    Where `pooled`, `to` has one number for each tile, and what is stored there is the largest of its vectors. Sums
    that go on then come from `gate`, where they lie as (rows, count, tiles) vectors; the epilogue is NONE or RELU.
    """
    assert not pooled or epilogue in (Epilogue.NONE, Epilogue.RELU)
    assert 1 <= tiles <= TILES

    def emit(module: ir.Module, name: str, lanes: int) -> None:
        lanes *= registers
        arguments = [INT64, *[POINTER] * 5, INT64, POINTER, INT64, INT64, *[POINTER] * 3]
        emit = Emitter.begin(module, name, arguments, lanes)
        rows, starts, columns, values, bias, x, column_stride, y, row_stride, count, origins, goals, gate = (
            emit.function.args
        )
        outputs = Outputs(y, row_stride, gate)
        matrix = Matrix(rows, starts, columns, values, bias)
        product = Product(emit, matrix, column_stride, outputs, first, epilogue, registers, pooled)
        with emit.loop(i64(0), count) as tile:
            begin = emit.builder.mul(tile.index, i64(tiles))
            own = [emit.builder.add(begin, i64(vector)) for vector in range(tiles)]
            inputs = [emit.at(x, emit.number(origins, at)) for at in own]
            places = [emit.number(goals, at) for at in ([tile.index] if pooled else own)]
            before = None
            if pooled:
                stride = emit.builder.mul(count, i64(tiles * lanes))
                before = Outputs(emit.at(gate, emit.builder.mul(begin, i64(lanes))), stride, gate)
            product.rows(inputs, places, before)
        emit.end()

    form = f"{'pooled' if pooled else 'plain'}_{'fresh' if first else 'added'}_{epilogue.name.lower()}"
    return Kernel(f"tile_product_{tiles}_{registers}_{form}", emit)
