"""Sparse matrix × panel: every epilogue, fresh and added, block after block, inside its arrays."""

from __future__ import annotations

import numpy as np
import pytest
from fenced_arrays import Fences, address
from hypothesis import given, settings
from hypothesis import strategies as st
from small_matrices import BATCHES, Matrix, assert_sums, matrices, padded, sum_terms

from tombola.kernels.compiler import compiled
from tombola.kernels.packing import MOST_COLUMNS, pack, values_of
from tombola.kernels.products import Epilogue, panel_product
from tombola.kernels.target import Target


def panel(fences: Fences, numbers: np.ndarray, stride: int, read: bool = True) -> np.ndarray:
    """Numbers (features, width) in an array whose rows are `stride` apart, with NaN between; no more after the last."""
    features, width = numbers.shape
    flat = np.full((features - 1) * stride + width, np.nan, dtype=np.float32)
    rows_of(flat, features, width, stride)[...] = numbers
    if read:
        return fences.given(flat)
    room = fences.room(len(flat))
    room[...] = flat
    return room


def rows_of(flat: np.ndarray, features: int, width: int, stride: int) -> np.ndarray:
    return np.lib.stride_tricks.as_strided(flat, (features, width), (4 * stride, 4))


@settings(max_examples=60)
@given(
    matrix=matrices(),
    count=st.sampled_from(BATCHES),
    gap=st.integers(0, 5),
    epilogue=st.sampled_from(Epilogue),
    fresh=st.booleans(),
    at_end=st.booleans(),
)
def test_equals_float64(
    target: Target, matrix: Matrix, count: int, gap: int, epilogue: Epilogue, fresh: bool, at_end: bool
) -> None:
    (rows, columns), width = matrix.shape, padded(count, target.lanes)
    stride = width + gap
    weights, bias = matrix.numbers(rows, columns) * matrix.keep, matrix.numbers(rows)
    inputs, before, gates = matrix.numbers(columns, width), matrix.numbers(rows, width), matrix.numbers(rows, width)

    fences = Fences(at_end)
    pattern = fences.packed(matrix.keep, matrix.block)
    x = panel(fences, inputs, stride)
    y = panel(fences, np.full_like(before, np.nan) if fresh else before, stride, read=False)
    looked_at = epilogue not in (Epilogue.NONE, Epilogue.RELU)
    gate = address(panel(fences, gates, stride)) if looked_at else 0  # nobody looks at nothing
    constant = fences.given(bias)
    calls = []
    for number, block in enumerate(pattern.blocks):
        finish = epilogue if number == len(pattern.blocks) - 1 else Epilogue.NONE
        values = fences.given(values_of(weights, block))
        where = [address(array) for array in (block.starts, block.columns, values, constant)]
        where += [address(x, block.first * stride), address(y)]
        kernel = compiled(panel_product(fresh and number == 0, finish), target)
        calls.append((kernel, (rows, *where, stride, width, gate)))
    for kernel, arguments in calls:
        kernel.call(*arguments)
    fences.check()

    start = np.broadcast_to(bias[:, None], before.shape) if fresh else before
    terms = sum_terms(matrix.keep)[:, None]
    exact = start + weights.astype(np.float64) @ inputs
    magnitudes = np.abs(start) + np.abs(weights).astype(np.float64) @ np.abs(inputs)
    if epilogue in (Epilogue.ADD, Epilogue.ADD_RELU):
        exact, magnitudes, terms = exact + gates, magnitudes + np.abs(gates), terms + 1
    if epilogue in (Epilogue.RELU, Epilogue.ADD_RELU):
        exact = np.maximum(exact, 0)
    if epilogue is Epilogue.GATE:
        exact, magnitudes = exact * (gates > 0), magnitudes * (gates > 0)
    found = rows_of(y, rows, width, stride).copy()
    assert_sums(found, exact, magnitudes, 0 if matrix.whole else terms)
    rows_of(y, rows, width, stride)[...] = np.nan
    assert np.isnan(y).all(), "the kernel wrote between the rows"


@pytest.mark.parametrize("block", [128, 784])
def test_the_first_layer_of_lenet(target: Target, block: int) -> None:
    rng = np.random.default_rng(0)
    keep = rng.random((300, 784)) < 0.1
    weights = (rng.standard_normal(keep.shape) * keep).astype(np.float32)
    x, bias = rng.standard_normal((784, 64)).astype(np.float32), rng.standard_normal(300).astype(np.float32)
    y = np.full((300, 64), np.nan, dtype=np.float32)
    for own in pack(keep, block).blocks:
        values = values_of(weights, own)
        arrays = [address(a) for a in (own.starts, own.columns, values, bias, x[own.first :], y)]
        compiled(panel_product(own.first == 0, Epilogue.NONE), target).call(300, *arrays, 64, 64, 0)
    magnitudes = np.abs(bias)[:, None] + np.abs(weights).astype(np.float64) @ np.abs(x)
    assert_sums(y, bias[:, None] + weights.astype(np.float64) @ x, magnitudes, sum_terms(keep)[:, None])


def test_the_last_of_the_most_columns(target: Target) -> None:
    width = target.lanes
    keep = np.zeros((1, MOST_COLUMNS), dtype=bool)
    keep[0, [0, 32768, -1]] = True  # the latter two are negative in 16 bits with a sign
    (block,) = pack(keep).blocks
    x = np.zeros((MOST_COLUMNS, width), dtype=np.float32)
    x[0], x[32768], x[-1] = 1, 10, 100
    values, bias, y = np.ones(3, np.float32), np.zeros(1, np.float32), np.full((1, width), np.nan, np.float32)
    arrays = [address(a) for a in (block.starts, block.columns, values, bias, x, y)]
    compiled(panel_product(True, Epilogue.NONE), target).call(1, *arrays, width, width, 0)
    assert (y == 111).all()


@pytest.mark.parametrize("width", [64, 80])
def test_a_number_that_is_none_is_not_hidden(target: Target, width: int) -> None:
    """ReLU keeps NaN, as torch's does: a training that diverges must not look finite. Infinite sums stay, too."""
    (block,) = pack(np.ones((3, 1), dtype=bool)).blocks
    values, bias = np.array([np.nan, np.inf, -np.inf], np.float32), np.zeros(3, np.float32)
    x, y = np.ones((1, width), np.float32), np.zeros((3, width), np.float32)
    arrays = [address(a) for a in (block.starts, block.columns, values, bias, x, y)]
    compiled(panel_product(True, Epilogue.RELU), target).call(3, *arrays, width, width, 0)
    assert np.isnan(y[0]).all()
    assert (y[1] == np.inf).all()
    assert (y[2] == 0).all()


def test_a_closed_gate_lets_nothing_through(target: Target) -> None:
    """Not even what is infinite: 0 is chosen, not multiplied. Open means above 0: -0, 0 and less are closed."""
    width = 4 * target.lanes
    (block,) = pack(np.ones((1, 1), dtype=bool)).blocks
    values, bias, x = np.full(1, np.inf, np.float32), np.zeros(1, np.float32), np.ones((1, width), np.float32)
    gate = np.resize(np.array([1e-45, 1.0, 0.0, -0.0, -1.0], np.float32), (1, width))
    y = np.zeros((1, width), np.float32)
    arrays = [address(a) for a in (block.starts, block.columns, values, bias, x, y)]
    compiled(panel_product(True, Epilogue.GATE), target).call(1, *arrays, width, width, address(gate))
    assert np.array_equal(y, np.where(gate > 0, np.inf, 0))
