"""Sparse matrix × one vector, by rows and by columns, where inputs that are 0 cost nothing."""

from __future__ import annotations

import numpy as np
import pytest
from fenced_arrays import Fences, address
from hypothesis import given, settings
from hypothesis import strategies as st
from small_matrices import Matrix, assert_sums, matrices, padded, sum_terms

from tombola.kernels.compiler import Kernel, compiled
from tombola.kernels.packing import MOST_COLUMNS, in_chunks, pack, values_of
from tombola.kernels.target import Target
from tombola.kernels.vectors import (
    COLUMNS_TIMES_VECTOR,
    DENSE_COLUMNS_TIMES_VECTOR,
    ROWS_TIMES_VECTOR,
    columns_scratch,
)


def exact(weights: np.ndarray, start: np.ndarray, x: np.ndarray, relu: bool) -> tuple[np.ndarray, np.ndarray]:
    """The product, and the sizes of what is added up."""
    product = start + weights.astype(np.float64) @ x
    return np.maximum(product, 0) if relu else product, np.abs(start) + np.abs(weights).astype(np.float64) @ np.abs(x)


@settings(max_examples=60)
@given(matrix=matrices(), relu=st.booleans(), fresh=st.booleans(), at_end=st.booleans())
def test_rows_equal_float64(target: Target, matrix: Matrix, relu: bool, fresh: bool, at_end: bool) -> None:
    rows, columns = matrix.shape
    weights, bias = matrix.numbers(rows, columns) * matrix.keep, matrix.numbers(rows)
    inputs, before = matrix.numbers(columns), matrix.numbers(rows)
    fences = Fences(at_end)
    pattern, constant, x, y = (
        fences.packed(matrix.keep, matrix.block),
        fences.given(bias),
        fences.given(inputs),
        fences.room(rows),
    )
    y[...] = np.nan if fresh else before
    calls = []
    for number, block in enumerate(pattern.blocks):
        values = fences.given(values_of(weights, block))
        where = [address(array) for array in (block.starts, block.columns, values, constant)]
        last = number == len(pattern.blocks) - 1
        rest = (int(fresh and number == 0), int(relu and last))
        calls.append((rows, *where, address(x, block.first), address(y), *rest))
    kernel = compiled(ROWS_TIMES_VECTOR, target)
    for arguments in calls:
        kernel.call(*arguments)
    fences.check()
    terms = 0 if matrix.whole else sum_terms(matrix.keep)
    assert_sums(y, *exact(weights, bias if fresh else before, inputs, relu), terms)


@settings(max_examples=60)
@given(matrix=matrices(), relu=st.booleans(), zeros=st.sampled_from([0.0, 0.5, 0.9, 1.0]), at_end=st.booleans())
def test_columns_equal_float64(target: Target, matrix: Matrix, relu: bool, zeros: float, at_end: bool) -> None:
    """A block is a range of outputs here."""
    outputs, columns = matrix.shape
    weights, bias = matrix.numbers(outputs, columns) * matrix.keep, matrix.numbers(outputs)
    inputs = matrix.numbers(columns) * (matrix.rng.random(columns) >= zeros).astype(np.float32)
    fences = Fences(at_end)
    block_of_outputs = min(matrix.block, outputs)
    pattern = fences.packed(matrix.keep.T, block_of_outputs)
    constant, x, y = fences.given(bias), fences.given(inputs), fences.room(outputs)
    calls = []
    for block in pattern.blocks:
        chunks = in_chunks(block, values_of(weights.T, block))
        where = [address(fences.given(array)) for array in (chunks.starts, chunks.columns, chunks.values)]
        where += [address(constant, block.first), address(x), address(y, block.first)]
        scratch = fences.room(columns_scratch(columns, block.width))
        calls.append((columns, block.width, *where, int(relu), address(scratch)))
    kernel = compiled(COLUMNS_TIMES_VECTOR, target)
    for arguments in calls:
        kernel.call(*arguments)
    fences.check()
    terms = 0 if matrix.whole else matrix.keep.sum(1)
    assert_sums(y, *exact(weights, bias, inputs, relu), terms)


@settings(max_examples=60)
@given(matrix=matrices(), relu=st.booleans(), zeros=st.sampled_from([0.0, 0.5, 1.0]), at_end=st.booleans())
def test_dense_columns_equal_float64(target: Target, matrix: Matrix, relu: bool, zeros: float, at_end: bool) -> None:
    (outputs, columns), fences = matrix.shape, Fences(at_end)
    weights, bias = matrix.numbers(outputs, columns) * matrix.keep, matrix.numbers(outputs)
    inputs = matrix.numbers(columns) * (matrix.rng.random(columns) >= zeros).astype(np.float32)
    stride = padded(outputs, target.lanes)
    transposed = np.zeros((columns, stride), np.float32)
    transposed[:, :outputs] = weights.T
    arrays = [address(fences.given(array)) for array in (transposed, bias, inputs)]
    y, scratch = fences.room(outputs), fences.room(columns + stride)
    kernel = compiled(DENSE_COLUMNS_TIMES_VECTOR, target)
    kernel.call(columns, outputs, stride, *arrays, address(y), int(relu), address(scratch))
    fences.check()
    assert_sums(y, *exact(weights, bias, inputs, relu), 0 if matrix.whole else np.full(outputs, columns + 1))


def test_columns_of_inputs_that_are_zero_are_not_read(target: Target) -> None:
    """0 and -0 skip their columns, whatever stands there; NaN does not."""
    (block,) = pack(np.ones((4, 2), dtype=bool)).blocks
    chunks = in_chunks(block, np.array([np.nan, np.nan, np.inf, np.inf, 1, 2, 3, 4], np.float32))
    x, bias = np.array([0.0, -0.0, 1.0, 1.0], np.float32), np.zeros(2, np.float32)
    y, scratch = np.zeros(2, np.float32), np.zeros(columns_scratch(4, 2), np.float32)
    arrays = [address(a) for a in (chunks.starts, chunks.columns, chunks.values, bias, x, y)]
    compiled(COLUMNS_TIMES_VECTOR, target).call(4, 2, *arrays, 0, address(scratch))
    assert y.tolist() == [4, 6]
    x[3] = np.nan
    compiled(COLUMNS_TIMES_VECTOR, target).call(4, 2, *arrays, 0, address(scratch))
    assert np.isnan(y).all()


def test_what_fills_a_chunk_up_changes_nothing(target: Target) -> None:
    """Not even where an input is infinite: 0 times infinity would be NaN."""
    (block,) = pack(np.array([[True, False], [False, True]])).blocks
    chunks = in_chunks(block, np.ones(2, np.float32))
    x, bias, y = np.array([np.inf, 1.0], np.float32), np.zeros(2, np.float32), np.zeros(2, np.float32)
    scratch = np.zeros(columns_scratch(2, 2), np.float32)
    arrays = [address(a) for a in (chunks.starts, chunks.columns, chunks.values, bias, x, y)]
    compiled(COLUMNS_TIMES_VECTOR, target).call(2, 2, *arrays, 0, address(scratch))
    assert y.tolist() == [np.inf, 1]


@pytest.mark.parametrize("kernel", [ROWS_TIMES_VECTOR, COLUMNS_TIMES_VECTOR], ids=lambda kernel: kernel.name)
def test_a_number_that_is_none_is_not_hidden(target: Target, kernel: Kernel) -> None:
    """ReLU keeps NaN, as torch's does."""
    (block,) = pack(np.ones((1, 1), dtype=bool)).blocks
    values, x, bias = np.full(1, np.nan, np.float32), np.ones(1, np.float32), np.zeros(1, np.float32)
    y, scratch = np.zeros(1, np.float32), np.zeros(columns_scratch(1, 1), np.float32)
    if kernel is ROWS_TIMES_VECTOR:
        arrays = [address(a) for a in (block.starts, block.columns, values, bias, x, y)]
        compiled(kernel, target).call(1, *arrays, 1, 1)
    else:
        chunks = in_chunks(block, values)
        arrays = [address(a) for a in (chunks.starts, chunks.columns, chunks.values, bias, x, y)]
        compiled(kernel, target).call(1, 1, *arrays, 1, address(scratch))
    assert np.isnan(y).all()


def test_more_columns_than_sixteen_bits_count(target: Target) -> None:
    rng = np.random.default_rng(0)
    columns = MOST_COLUMNS + 1000
    keep = rng.random((3, columns)) < 0.01
    keep[:, [0, 32768, MOST_COLUMNS - 1, MOST_COLUMNS, -1]] = True
    weights = (rng.integers(-9, 10, keep.shape) * keep).astype(np.float32)
    x, bias = rng.integers(-9, 10, columns).astype(np.float32), np.ones(3, np.float32)
    y = np.full(3, np.nan, dtype=np.float32)
    blocks = pack(keep).blocks
    assert [block.first for block in blocks] == [0, MOST_COLUMNS]
    for block in blocks:
        values = values_of(weights, block)
        arrays = [address(a) for a in (block.starts, block.columns, values, bias, x[block.first :], y)]
        compiled(ROWS_TIMES_VECTOR, target).call(3, *arrays, int(block.first == 0), 0)
    assert np.array_equal(y, 1 + weights.astype(np.float64) @ x)  # whole numbers below 2^24: every sum is exact
