"""Sampled products over tiles: the gradient of a convolution's kept weights and of its bias, of nothing else."""

from __future__ import annotations

import numpy as np
from fenced_arrays import address
from hypothesis import given, settings
from hypothesis import strategies as st
from small_matrices import assert_sums
from small_tiles import Scattered, scattered, spread

from tombola.kernels.choices import TAKEN
from tombola.kernels.compiler import compiled
from tombola.kernels.target import Target
from tombola.kernels.tile_samples import tile_samples


def sample(
    target: Target, own: Scattered, delta: np.ndarray, choices: np.ndarray | None, biases: bool, before: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of nonzeros and biases, from delta (rows, vectors, lanes), added to `before` if that is there."""
    fences, lanes = own.fences, own.lanes
    goals = own.places(delta.shape[1])
    outer = fences.given(spread(delta, goals, lanes))
    gradients, sums = fences.room(own.block.nonzeros), fences.room(own.rows)
    if before is not None:
        gradients[...] = sums[...] = before
    taken = 0 if choices is None else address(fences.given(choices))
    tables = [address(fences.given(table)) for table in (own.origins, goals)]
    matrix = (own.rows, *own.where())
    where = (address(outer), outer.shape[1], taken, address(own.x), own.stride, address(gradients), address(sums))
    kernel = compiled(tile_samples(own.vectors, choices is not None, biases), target)
    kernel.call(*matrix, *where, own.count, *tables, int(before is None))
    fences.check()
    return gradients, sums


@settings(max_examples=80)
@given(data=st.data(), pooled=st.booleans(), biases=st.booleans(), before=st.sampled_from([None, 3.0]))
def test_equals_float64(target: Target, data: st.DataObject, pooled: bool, biases: bool, before: float | None) -> None:
    own = data.draw(scattered(target.lanes, TAKEN if pooled else None))
    matrix = own.matrix
    vectors = own.count if pooled else own.count * own.vectors
    delta = matrix.numbers(own.rows, vectors, own.lanes)
    choices = None
    full = delta.reshape(own.rows, own.count, -1, own.lanes).astype(np.float64)
    if pooled:
        choices = matrix.rng.integers(0, TAKEN, (own.rows, own.count, own.lanes)).astype(np.int8)
        full = np.where(choices[:, :, None] == np.arange(TAKEN)[:, None], full, 0)
    gradients, sums = sample(target, own, delta, choices, biases, before)

    inputs = own.inputs()
    start = before or 0.0
    exact = start + np.einsum("rtvl,ctvl->rc", full, inputs)
    magnitudes = start + np.einsum("rtvl,ctvl->rc", np.abs(full), np.abs(inputs))
    terms = 0 if matrix.whole else full[0].size + 8
    if own.block.nonzeros:
        places = own.block.places
        assert_sums(gradients, exact.reshape(-1)[places], magnitudes.reshape(-1)[places], terms)
    if biases:
        assert_sums(sums, start + full.sum((1, 2, 3)), start + np.abs(full).sum((1, 2, 3)), terms)
    else:
        assert np.isnan(sums).all() if before is None else (sums == before).all()


def test_tiles_after_tiles(target: Target) -> None:
    """Parts of the tiles one after the other are all of them."""
    rng = np.random.default_rng(0)
    lanes, rows, columns, count = target.lanes, 5, 30, 10
    keep = rng.random((rows, columns)) < 0.5
    starts = np.concatenate([[0], np.cumsum(keep.sum(1))]).astype(np.int32)
    places = np.nonzero(keep)[1].astype(np.uint16)
    x = rng.standard_normal((columns, count * 4, lanes)).astype(np.float32)
    delta = rng.standard_normal((rows, count * 4, lanes)).astype(np.float32)
    tables = (np.arange(count * 4, dtype=np.int32) * lanes).reshape(count, 4)
    gradients, sums = np.full(len(places), np.nan, np.float32), np.full(rows, np.nan, np.float32)
    kernel, stride = compiled(tile_samples(4, False, True), target), count * 4 * lanes
    for first in range(0, count, 3):
        own = np.ascontiguousarray(tables[first : first + 3])
        arrays = [address(a) for a in (starts, places, delta)]
        where = (stride, 0, address(x), stride, address(gradients), address(sums), len(own), address(own), address(own))
        kernel.call(rows, *arrays, *where, int(first == 0))
    exact = np.einsum("rvl,cvl->rc", delta.astype(np.float64), x)[keep]
    np.testing.assert_allclose(gradients, exact, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sums, delta.astype(np.float64).sum((1, 2)), rtol=1e-4, atol=1e-4)
