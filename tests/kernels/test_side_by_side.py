"""16 rows side by side: against float64, inside its arrays, and nothing from inputs that have no weight."""

from __future__ import annotations

import numpy as np
import pytest
from fenced_arrays import Fences, address
from hypothesis import given, settings
from hypothesis import strategies as st
from small_matrices import Matrix, assert_sums, matrices, sum_terms

from tombola.errors import KernelError
from tombola.kernels.compiler import compiled
from tombola.kernels.packing import MOST_COLUMNS
from tombola.kernels.side_by_side import NOBODY, ROWS, SIDE_BY_SIDE, SideBySide, fits, pack_side_by_side
from tombola.kernels.target import avx2, host

needs_avx512 = pytest.mark.skipif(host().lanes != ROWS, reason="a kernel for AVX-512, which is not here")


@st.composite
def large_enough(draw: st.DrawFn) -> Matrix:
    matrix = draw(matrices(70, 110))
    rows, columns = (max(ROWS, size) for size in matrix.shape)
    keep = np.resize(matrix.keep, (rows, columns))
    return Matrix(keep, columns, matrix.whole, matrix.rng)


def run(packed: SideBySide, x: np.ndarray, bias: np.ndarray, relu: bool, at_end: bool) -> np.ndarray:
    """The product, everything in arrays with guarded pages."""
    fences = Fences(at_end)
    given = [fences.given(part) for part in (packed.starts, packed.firsts, packed.lanes, packed.values, bias, x)]
    y = fences.room(len(bias))
    compiled(SIDE_BY_SIDE).call(len(bias), *map(address, given), address(y), int(relu))
    fences.check()
    return y.copy()


@needs_avx512
@settings(max_examples=80)
@given(matrix=large_enough(), relu=st.booleans(), at_end=st.booleans())
def test_equals_float64(matrix: Matrix, relu: bool, at_end: bool) -> None:
    rows, columns = matrix.keep.shape
    weights, bias, x = matrix.numbers(rows, columns) * matrix.keep, matrix.numbers(rows), matrix.numbers(columns)
    found = run(pack_side_by_side(matrix.keep, weights), x, bias, relu, at_end)
    exact = bias + weights.astype(np.float64) @ x
    magnitudes = np.abs(bias) + np.abs(weights).astype(np.float64) @ np.abs(x)
    exact = np.maximum(exact, 0) if relu else exact
    assert_sums(found, exact, magnitudes, 0 if matrix.whole else sum_terms(matrix.keep))


@given(matrix=large_enough())
def test_every_nonzero_is_there_once(matrix: Matrix) -> None:
    rows, columns = matrix.keep.shape
    numbers = np.arange(1, rows * columns + 1, dtype=np.float32).reshape(rows, columns)
    packed = pack_side_by_side(matrix.keep, numbers)
    for group, begin in enumerate(packed.starts[:-1]):
        first = min(ROWS * group, rows - ROWS)
        found = np.zeros((ROWS, columns), dtype=np.float32)
        for step in range(begin, packed.starts[group + 1]):
            for lane in np.flatnonzero(packed.lanes[step] != NOBODY):
                column = packed.firsts[step] + packed.lanes[step, lane]
                assert not found[lane, column]
                found[lane, column] = packed.values[step, lane]
        assert np.array_equal(found, (numbers * matrix.keep)[first : first + ROWS])


@needs_avx512
def test_inputs_without_a_weight_have_no_influence() -> None:
    """Not even where they are no numbers; and what is no number reaches the outputs that a weight leads to."""
    keep = np.zeros((20, 40), dtype=bool)
    keep[3, 5] = keep[19, 39] = keep[7, 0] = True
    x = np.full(40, np.nan, dtype=np.float32)
    x[0] = 2
    y = run(pack_side_by_side(keep, np.ones((20, 40), np.float32)), x, np.zeros(20, np.float32), True, True)
    assert np.isnan(y[[3, 19]]).all()
    assert y[7] == 2
    assert not np.delete(y, [3, 7, 19]).any()


def test_what_does_not_fit_is_refused() -> None:
    assert fits(16, 16, 16)
    for rows, columns, lanes in ((15, 16, 16), (16, 15, 16), (16, MOST_COLUMNS + 1, 16), (16, 16, 8)):
        assert not fits(rows, columns, lanes)
    with pytest.raises(KernelError, match="has not 16 rows"):
        pack_side_by_side(np.ones((15, 40), dtype=bool), np.ones((15, 40), np.float32))
    with pytest.raises(KernelError, match="does not run on 8"):
        compiled(SIDE_BY_SIDE, avx2())
