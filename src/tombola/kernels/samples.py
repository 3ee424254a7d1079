"""Sampled products: of a large matrix product only the entries that a mask keeps, as machine code.

The gradient of a layer's weights is (gradient of its outputs) · (its inputs)'; a pruned layer needs it at its nonzeros
only. Each is the inner product of two panels. As many as a vector has lanes are formed side by side and then reduced
together, by transposing and adding, so that one store writes them all.
"""

from __future__ import annotations

from llvmlite import ir

from tombola.kernels.compiler import Kernel
from tombola.kernels.emit import INT16, INT64, POINTER, Emitter, i64

TILES = 4
REST = 4
"""Nonzeros that are reduced together where a row has no whole vector of them left."""


def emit_sampled_product(module: ir.Module, name: str, lanes: int) -> None:
    """name(rows, starts, columns, delta, x, gradients, sums, stride, width).

    gradients[k] = Σ_j delta[r·stride + j] · x[columns[k]·stride + j] for k from starts[r] to starts[r+1], and sums[r] =
    Σ_j delta[r·stride + j], over j < width, a multiple of `lanes`.
    """
    emit = Emitter.begin(module, name, [INT64, *[POINTER] * 6, INT64, INT64], lanes)
    width, builder = emit.function.args[8], emit.builder
    whole = builder.mul(builder.sdiv(width, i64(TILES * lanes)), i64(TILES * lanes))
    with emit.loop(i64(0), whole, step=TILES * lanes) as chunk:
        _rows_of_chunk(emit, chunk.index, TILES)
    with emit.loop(whole, width, step=lanes) as chunk:
        _rows_of_chunk(emit, chunk.index, 1)
    emit.end()


def _rows_of_chunk(emit: Emitter, chunk: ir.Value, tiles: int) -> None:
    """What the `tiles · lanes` examples from `chunk` on add to every gradient."""
    rows, starts, _, delta, _, _, sums, stride, _ = emit.function.args
    builder, lanes = emit.builder, emit.lanes
    fresh = builder.icmp_signed("==", chunk, i64(0))
    with emit.loop(i64(0), rows) as row:
        base = builder.add(builder.mul(row.index, stride), chunk)
        own = [emit.load(delta, builder.add(base, i64(tile * lanes)), emit.vector) for tile in range(tiles)]
        total = own[0]
        for vector in own[1:]:
            total = builder.fadd(total, vector)
        _accumulate(emit, emit.sum_of_lanes(total), sums, row.index, fresh)
        begin, end = emit.range_of(starts, row.index)
        for group in (lanes, REST, 1):
            begin = _groups(emit, begin, end, own, chunk, group)


def _groups(
    emit: Emitter, begin: ir.Value, end: ir.Value, own: list[ir.Value], chunk: ir.Value, group: int
) -> ir.Value:
    """The gradients from `begin` on, as many whole groups as fit before `end`; returns where they end."""
    gradients = emit.function.args[5]
    builder = emit.builder
    whole = builder.add(begin, builder.and_(builder.sub(end, begin), i64(-group)))
    fresh = builder.icmp_signed("==", chunk, i64(0))
    with emit.loop(begin, whole, step=group) as first:
        partial = [_product(emit, builder.add(first.index, i64(j)), own, chunk) for j in range(group)]
        sums = emit.sum_of_lanes(partial[0]) if group == 1 else sums_of_vectors(emit, partial)
        _accumulate(emit, sums, gradients, first.index, fresh)
    return whole


def _product(emit: Emitter, nonzero: ir.Value, own: list[ir.Value], chunk: ir.Value) -> ir.Value:
    """delta · x for one nonzero, lane by lane: not yet added up."""
    _, _, columns, _, x, _, _, stride, _ = emit.function.args
    builder = emit.builder
    at = builder.add(builder.mul(emit.number(columns, nonzero, INT16), stride), chunk)
    total = None
    for tile, vector in enumerate(own):
        inputs = emit.load(x, builder.add(at, i64(tile * emit.lanes)), emit.vector)
        total = builder.fmul(vector, inputs) if total is None else emit.fma(vector, inputs, total)
    return total


def _accumulate(emit: Emitter, amount: ir.Value, base: ir.Value, index: ir.Value, fresh: ir.Value) -> None:
    """Stores the first chunk's amount and adds the others'."""
    before = emit.load(base, index, amount.type)
    emit.store(emit.builder.select(fresh, amount, emit.builder.fadd(before, amount)), base, index)


def sums_of_vectors(emit: Emitter, vectors: list[ir.Value]) -> ir.Value:
    """A vector whose lane j is the sum of the lanes of vectors[j]; their number is a power of 2, at most `lanes`.

    At every distance 1, 2, 4, ... two vectors become one: lanes whose number has the distance's bit come from the
    second, and each lane takes in the one at that distance. Fewer vectors than lanes leave sums in several parts, which
    are folded.
    """
    lanes, distance = emit.lanes, 1
    while len(vectors) > 1:
        halved = []
        for a, b in zip(vectors[::2], vectors[1::2], strict=True):
            kept = [j + lanes if j & distance else j for j in range(lanes)]
            crossed = [(j ^ distance) + lanes if j & distance else j ^ distance for j in range(lanes)]
            halved.append(emit.builder.fadd(emit.shuffled(a, b, kept), emit.shuffled(a, b, crossed)))
        vectors, distance = halved, 2 * distance
    total, left = vectors[0], lanes
    while left > distance:
        left //= 2
        low, high = range(left), range(left, 2 * left)
        total = emit.builder.fadd(emit.shuffled(total, total, low), emit.shuffled(total, total, high))
    return total


SAMPLED_PRODUCT = Kernel("sampled_product", emit_sampled_product)
