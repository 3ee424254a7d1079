"""Sampled products: the gradient of the kept weights and of the bias, and of nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from fenced_arrays import Fences, address
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import ir
from small_matrices import BATCHES, Matrix, assert_sums, matrices, padded

from tombola.kernels.compiler import Kernel, compiled
from tombola.kernels.emit import POINTER, Emitter, i64
from tombola.kernels.packing import values_of
from tombola.kernels.samples import SAMPLED_PRODUCT, sums_of_vectors
from tombola.kernels.target import Target


@settings(max_examples=60)
@given(matrix=matrices(), count=st.sampled_from(BATCHES), gap=st.integers(0, 5), at_end=st.booleans())
def test_equals_float64(target: Target, matrix: Matrix, count: int, gap: int, at_end: bool) -> None:
    """Further examples of the panel have a gradient of 0, as they leave the loss."""
    (rows, columns), width = matrix.shape, padded(count, target.lanes)
    stride = width + gap
    delta = np.full((rows, stride), np.nan, dtype=np.float32)
    x = np.full((columns, stride), np.nan, dtype=np.float32)
    delta[:, :width], x[:, :width] = matrix.numbers(rows, width), matrix.numbers(columns, width)
    delta[:, count:width] = 0

    fences = Fences(at_end)
    pattern = fences.packed(matrix.keep, matrix.block)
    inner, outer = (fences.given(panel.reshape(-1)[: len(panel) * stride - gap]) for panel in (x, delta))
    sums = fences.room(rows)
    gradients = [fences.room(block.nonzeros) for block in pattern.blocks]
    calls = [
        (
            rows,
            *map(address, (block.starts, block.columns, outer)),
            address(inner, block.first * stride),
            *map(address, (own, sums)),
            stride,
            width,
        )
        for block, own in zip(pattern.blocks, gradients, strict=True)
    ]
    kernel = compiled(SAMPLED_PRODUCT, target)
    for arguments in calls:
        kernel.call(*arguments)
    fences.check()

    delta, x = delta[:, :count].astype(np.float64), x[:, :count]
    terms = 0 if matrix.whole else count
    assert_sums(sums, delta.sum(1), np.abs(delta).sum(1), terms)
    exact, magnitudes = delta @ x.T, np.abs(delta) @ np.abs(x).T
    for block, own in zip(pattern.blocks, gradients, strict=True):
        if block.nonzeros:
            places = block.places
            assert_sums(own, exact.reshape(-1)[places], magnitudes.reshape(-1)[places], terms)


@pytest.mark.parametrize("width", [64, 80, 192])
def test_a_dense_mask_gives_the_whole_gradient(target: Target, width: int) -> None:
    rng = np.random.default_rng(0)
    delta = rng.standard_normal((7, width)).astype(np.float32)
    x = rng.standard_normal((50, width)).astype(np.float32)
    (block,) = Fences(True).packed(np.ones((7, 50), dtype=bool), 50).blocks
    gradients, sums = np.full(350, np.nan, np.float32), np.full(7, np.nan, np.float32)
    arrays = [address(a) for a in (block.starts, block.columns, delta, x, gradients, sums)]
    compiled(SAMPLED_PRODUCT, target).call(7, *arrays, width, width)
    whole = (delta.astype(np.float64) @ x.T).astype(np.float64)
    expected = whole.reshape(-1)[block.places]
    magnitudes = (np.abs(delta).astype(np.float64) @ np.abs(x).T).reshape(-1)[block.places]
    assert_sums(gradients, expected, magnitudes, width)
    assert values_of(gradients.reshape(7, 50), block).tobytes() == gradients.tobytes()


def _emit_sums(module: ir.Module, name: str, lanes: int) -> None:
    emit = Emitter.begin(module, name, [POINTER, POINTER], lanes)
    square, sums = emit.function.args
    vectors = [emit.load(square, i64(line * lanes), emit.vector) for line in range(lanes)]
    emit.store(sums_of_vectors(emit, vectors), sums, i64(0))
    emit.end()


def test_sums_of_a_square_of_vectors(target: Target) -> None:
    square = np.arange(target.lanes**2, dtype=np.float32).reshape(target.lanes, target.lanes)
    sums = np.zeros(target.lanes, dtype=np.float32)
    compiled(Kernel("sums_of_vectors", _emit_sums), target).call(address(square), address(sums))
    assert np.array_equal(sums, square.sum(1))
