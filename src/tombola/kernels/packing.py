"""Sparse matrices as the kernels read them, made from a dense matrix and its mask.

Everything is checked here, once, so that kernels need not check: a row's range never leaves the arrays, a column never
leaves the inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tombola.errors import KernelError

Floats = NDArray[np.float32]
MOST_COLUMNS = 1 << 16
"""Columns are counted in 16 bits: half of what a nonzero takes beside its value. Wider matrices come in blocks."""
CHUNK = 8
"""Nonzeros of one column that are taken together where a matrix is read column by column."""


@dataclass(frozen=True)
class Block:
    """The nonzeros of `width` columns from `first` on: those of row r lie from starts[r] to starts[r + 1].

    `columns` are counted from `first`. `places` says where each nonzero is in the whole matrix, read row by row.
    """

    first: int
    width: int
    starts: NDArray[np.int32]
    columns: NDArray[np.uint16]
    places: NDArray[np.int64]

    @property
    def nonzeros(self) -> int:
        return len(self.columns)


@dataclass(frozen=True)
class Pattern:
    """Where a matrix (rows, columns) has its nonzeros, a range of columns after the other."""

    shape: tuple[int, int]
    blocks: tuple[Block, ...]

    @property
    def nonzeros(self) -> int:
        return sum(block.nonzeros for block in self.blocks)

    @property
    def places(self) -> NDArray[np.int64]:
        """Of all nonzeros, in the order of the blocks."""
        return np.concatenate([block.places for block in self.blocks])


def pack(keep: NDArray[np.bool_], block: int = MOST_COLUMNS) -> Pattern:
    """The pattern of a mask (rows, columns), `block` columns at a time. Weights that are kept and 0 are in it."""
    if keep.ndim != 2 or keep.dtype != np.bool_ or not keep.size:
        raise KernelError(f"a sparse matrix is made of a boolean matrix with entries, not {keep.dtype} {keep.shape}")
    if not 1 <= block <= MOST_COLUMNS:
        raise KernelError(f"a block has 1 to {MOST_COLUMNS} columns, not {block}")
    return Pattern(
        keep.shape,
        tuple(_block(keep, first, min(block, keep.shape[1] - first)) for first in range(0, keep.shape[1], block)),
    )


def _block(keep: NDArray[np.bool_], first: int, width: int) -> Block:
    rows, columns = np.nonzero(keep[:, first : first + width])
    if len(rows) > np.iinfo(np.int32).max:
        raise KernelError(f"{len(rows)} nonzeros are more than a kernel counts")
    starts = np.zeros(len(keep) + 1, dtype=np.int32)
    np.cumsum(np.bincount(rows, minlength=len(keep)), out=starts[1:])
    return Block(first, width, starts, columns.astype(np.uint16), rows * keep.shape[1] + first + columns)


def values_of(matrix: Floats, block: Block) -> Floats:
    """A block's values, from the matrix (or its entries, row by row) of which it has the pattern."""
    return np.ascontiguousarray(matrix.reshape(-1)[block.places], dtype=np.float32)


@dataclass(frozen=True)
class Chunks:
    """A block's nonzeros with each row filled up to whole chunks: those of row r are starts[r] to starts[r + 1].

    What fills up has the value 0 and columns behind the last, so it changes nothing, not even where an input is
    infinite.
    """

    starts: NDArray[np.int32]
    columns: NDArray[np.uint16]
    values: Floats


def in_chunks(block: Block, values: Floats) -> Chunks:
    """A block and its values in chunks of `CHUNK` nonzeros. Its width leaves `CHUNK` columns of 16 bits free."""
    if block.width > MOST_COLUMNS - CHUNK:
        raise KernelError(f"a block in chunks has at most {MOST_COLUMNS - CHUNK} columns, not {block.width}")
    counts = np.diff(block.starts)
    starts = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(-(-counts // CHUNK), out=starts[1:])
    if starts[-1] * CHUNK > np.iinfo(np.int32).max:
        raise KernelError(f"{starts[-1]} chunks are more than a kernel counts")
    places = np.arange(block.nonzeros) + np.repeat(starts[:-1] * CHUNK - block.starts[:-1], counts)
    columns = np.tile(np.arange(block.width, block.width + CHUNK, dtype=np.uint16), starts[-1])
    filled = np.zeros(starts[-1] * CHUNK, dtype=np.float32)
    columns[places], filled[places] = block.columns, values
    return Chunks(starts.astype(np.int32), columns, filled)


NEAR_COLUMNS = 160
"""Columns whose inputs for 64 examples, the most that kernels take at a time, stay near the core: 40 kB."""
WORTHWHILE = 20
"""Nonzeros of a row and block below which going through the rows once more costs more than nearness brings."""


def block_columns(columns: int, density: float) -> int:
    """How many columns at a time a matrix of this density is best read."""
    near = max(NEAR_COLUMNS, WORTHWHILE / max(density, WORTHWHILE / MOST_COLUMNS))
    blocks = -(-columns // min(MOST_COLUMNS, int(near)))
    return -(-columns // blocks)
