"""Convolutions that remember what their pool took, and the way back through it."""

from __future__ import annotations

import numpy as np
import pytest
from fenced_arrays import Fences, address
from hypothesis import given, settings
from hypothesis import strategies as st
from small_matrices import Matrix, assert_sums, sum_terms
from small_tiles import Scattered, gathered, scattered, spread

from tombola.kernels.choices import TAKEN, UNPOOL, choosing_product
from tombola.kernels.compiler import compiled
from tombola.kernels.target import Target


def choose(
    target: Target, own: Scattered, weights: np.ndarray, bias: np.ndarray, before: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """What the kernel makes of it: the results and the choices (rows, tiles, lanes)."""
    goals, fences, lanes = own.places(own.count), own.fences, own.lanes
    y = fences.room((own.rows, own.count * (lanes + 1)))
    choices = fences.room((own.rows, own.count, lanes), np.int8)
    values = weights.reshape(-1)[own.block.places]
    arrays = own.where(values, bias)
    tables = [address(fences.given(table)) for table in (own.origins, goals)]
    sums = 0 if before is None else address(fences.given(before))
    arguments = (own.rows, *arrays, address(own.x), own.stride, address(y), y.shape[1], own.count, *tables, sums)
    compiled(choosing_product(before is None), target).call(*arguments, address(choices))
    fences.check()
    found = gathered(y, goals, lanes)
    assert np.isnan(y).all(), "the kernel wrote between the vectors"
    return found, choices.copy()


@settings(max_examples=60)
@given(data=st.data(), fresh=st.booleans())
def test_the_largest_and_which_it_is(target: Target, data: st.DataObject, fresh: bool) -> None:
    """Whole numbers have many ties: the first of them is taken, as torch's pools do."""
    own = data.draw(scattered(target.lanes, TAKEN))
    matrix = own.matrix
    weights, bias = matrix.numbers(*matrix.shape) * matrix.keep, matrix.numbers(own.rows)
    before = None if fresh else matrix.numbers(own.rows, own.count, TAKEN, own.lanes)
    found, choices = choose(target, own, weights, bias, before)

    start = bias[:, None, None, None] if before is None else before
    inputs = own.inputs()
    exact = start + np.einsum("rc,ctvl->rtvl", weights.astype(np.float64), inputs)
    magnitudes = np.abs(start) + np.einsum("rc,ctvl->rtvl", np.abs(weights).astype(np.float64), np.abs(inputs))
    terms = 0 if matrix.whole else sum_terms(matrix.keep)[:, None, None]
    assert_sums(found, np.maximum(exact.max(2), 0), magnitudes.max(2), terms)
    if matrix.whole:
        assert np.array_equal(choices, exact.argmax(2))
    taken = np.take_along_axis(exact, choices[:, :, None].astype(np.int64), 2)[:, :, 0]
    assert_sums(np.maximum(taken, 0), np.maximum(exact.max(2), 0), 2 * magnitudes.max(2), terms)


def test_a_number_that_is_none_is_not_hidden(target: Target) -> None:
    """By the pool or by ReLU: a training that diverges must not look finite."""
    rng = np.random.default_rng(0)
    for vector in range(TAKEN):
        own = next_to_one_another(target, rng)
        x = own.x.copy()
        x[vector * own.lanes] = np.nan
        own.x = own.fences.given(x)
        found, _ = choose(target, own, np.ones((1, 1), np.float32), np.zeros(1, np.float32), None)
        assert np.isnan(found[0, 0, 0])
        assert np.isfinite(found[0, 0, 1:]).all()


def next_to_one_another(target: Target, rng: np.random.Generator) -> Scattered:
    """One row, one column, one tile whose vectors do not overlap."""
    own = Scattered(Matrix(np.ones((1, 1), bool), 1, True, rng), 1, TAKEN, target.lanes, 1, Fences(True))
    own.origins = (np.arange(TAKEN, dtype=np.int32) * target.lanes)[None]
    own.x = own.fences.given(rng.standard_normal(TAKEN * target.lanes).astype(np.float32))
    return own


@settings(max_examples=40)
@given(rows=st.integers(1, 9), count=st.integers(1, 9), seed=st.integers(0, 2**32), at_end=st.booleans())
def test_the_gradient_goes_where_it_came_from(target: Target, rows: int, count: int, seed: int, at_end: bool) -> None:
    rng, lanes, fences = np.random.default_rng(seed), target.lanes, Fences(at_end)
    delta = rng.standard_normal((rows, count, lanes)).astype(np.float32)
    choices = rng.integers(0, TAKEN, (rows, count, lanes)).astype(np.int8)
    origins = (rng.permutation(count) * (lanes + 1)).astype(np.int32)
    goals = (rng.permutation(count * TAKEN) * (lanes + 1)).astype(np.int32)
    x, y = fences.given(spread(delta, origins, lanes)), fences.room((rows, count * TAKEN * (lanes + 1)))
    arrays = [address(fences.given(array)) for array in (choices, origins, goals)]
    compiled(UNPOOL, target).call(rows, address(x), x.shape[1], arrays[0], address(y), y.shape[1], count, *arrays[1:])
    fences.check()
    found = gathered(y, goals, lanes).reshape(rows, count, TAKEN, lanes)
    assert np.isnan(y).all(), "the kernel wrote between the vectors"
    assert np.array_equal(found, np.where(choices[:, :, None] == np.arange(TAKEN)[:, None], delta[:, :, None], 0))


@pytest.mark.parametrize("number", [np.inf, np.nan])
def test_a_gradient_that_is_not_finite_spoils_only_its_own_position(target: Target, number: float) -> None:
    lanes = target.lanes
    delta, y = np.full(lanes, number, np.float32), np.ones(TAKEN * lanes, np.float32)
    choices, tables = np.full(lanes, 2, np.int8), np.arange(TAKEN, dtype=np.int32) * lanes
    compiled(UNPOOL, target).call(
        1, address(delta), 0, address(choices), address(y), 0, 1, address(tables), address(tables)
    )
    assert np.array_equal(y.reshape(TAKEN, lanes)[2], delta, equal_nan=True)
    assert (np.delete(y.reshape(TAKEN, lanes), 2, 0) == 0).all()
