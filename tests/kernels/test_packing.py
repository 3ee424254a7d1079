"""Packing: every kept weight once, in its place, zeros among them; what cannot be packed is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from small_matrices import Matrix, matrices

from tombola.errors import KernelError
from tombola.kernels.packing import MOST_COLUMNS, Pattern, pack, values_of


def unpacked(pattern: Pattern, values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mask and the matrix, put together from what kernels read."""
    keep, matrix = np.zeros(pattern.shape, dtype=bool), np.zeros(pattern.shape, dtype=np.float32)
    for block, own in zip(pattern.blocks, values, strict=True):
        for row in range(pattern.shape[0]):
            inside = slice(block.starts[row], block.starts[row + 1])
            columns = block.first + block.columns[inside].astype(int)
            assert (np.diff(columns) > 0).all()
            keep[row, columns], matrix[row, columns] = True, own[inside]
    return keep, matrix


@settings(max_examples=60)
@given(matrix=matrices())
def test_packing_keeps_everything(matrix: Matrix) -> None:
    weights = matrix.numbers(*matrix.shape)
    weights[matrix.rng.random(matrix.shape) < 0.2] = 0  # kept weights that are 0 stay
    pattern = pack(matrix.keep, matrix.block)
    values = [values_of(weights, block) for block in pattern.blocks]
    keep, back = unpacked(pattern, values)
    assert np.array_equal(keep, matrix.keep)
    assert np.array_equal(back, weights * matrix.keep)
    assert pattern.nonzeros == matrix.keep.sum() == len(pattern.places)
    assert np.array_equal(np.sort(pattern.places), np.flatnonzero(matrix.keep))
    assert np.array_equal(weights.reshape(-1)[pattern.places], np.concatenate(values))
    widths = [block.width for block in pattern.blocks]
    assert sum(widths) == matrix.shape[1]
    assert max(widths) <= matrix.block
    for block, own in zip(pattern.blocks, values, strict=True):
        assert (block.starts.dtype, block.columns.dtype, own.dtype) == (np.int32, np.uint16, np.float32)
        assert (block.columns < block.width).all()
        assert (block.starts[0], block.starts[-1]) == (0, block.nonzeros)


@pytest.mark.parametrize("columns", [MOST_COLUMNS - 1, MOST_COLUMNS, MOST_COLUMNS + 1, 3 * MOST_COLUMNS])
def test_more_columns_than_sixteen_bits_count(columns: int) -> None:
    keep = np.zeros((2, columns), dtype=bool)
    keep[0, [0, -1]] = keep[1, columns // 2] = True
    pattern = pack(keep)
    assert len(pattern.blocks) == -(-columns // MOST_COLUMNS)
    assert np.array_equal(unpacked(pattern, [np.ones(block.nonzeros) for block in pattern.blocks])[0], keep)


def test_values_are_a_copy_and_do_not_mind_the_order_in_memory() -> None:
    weights = np.arange(12, dtype=np.float32).reshape(3, 4)
    (block,) = pack(weights.T > 3).blocks  # the mask of a transpose is not contiguous either
    values = values_of(weights.T, block)
    assert np.array_equal(values, weights.T[weights.T > 3])
    values[:] = 0
    assert weights[2, 3] == 11


@pytest.mark.parametrize(
    "matrix",
    [
        np.ones((3, 4), np.float32),
        np.ones((3, 4), np.uint8),
        np.ones(4, bool),
        np.ones((2, 3, 4), bool),
        np.ones((0, 4), bool),
        np.ones((4, 0), bool),
    ],
    ids=lambda matrix: f"{matrix.dtype}{matrix.shape}",
)
def test_what_is_no_mask_is_refused_by_name(matrix: np.ndarray) -> None:
    with pytest.raises(KernelError, match="boolean matrix with entries") as refusal:
        pack(matrix)
    assert f"{matrix.dtype} {matrix.shape}" in str(refusal.value)


@pytest.mark.parametrize("block", [0, -1, MOST_COLUMNS + 1])
def test_a_block_that_is_none_is_refused(block: int) -> None:
    with pytest.raises(KernelError, match=f"1 to {MOST_COLUMNS} columns, not {block}"):
        pack(np.ones((2, 2), dtype=bool), block)
