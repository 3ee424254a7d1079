"""Sparse matrices over vectors that lie anywhere, for kernels that go through tiles."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from fenced_arrays import Fences, address
from hypothesis import strategies as st
from small_matrices import Matrix, matrices

from tombola.kernels.packing import Block

VECTORS = 12


@dataclass
class Scattered:
    """A matrix, `count` tiles of `vectors` vectors each, where these begin in x, and fenced arrays for all of it.

    x has a `stride` from column to column; vectors of it overlap and lie at any float.
    """

    matrix: Matrix
    count: int
    vectors: int
    lanes: int
    stride: int
    fences: Fences
    block: Block = field(init=False)

    def __post_init__(self) -> None:
        own = self.matrix
        (self.block,) = self.fences.packed(own.keep, own.shape[1]).blocks
        self.origins = own.rng.integers(0, 3 * self.lanes, (self.count, self.vectors)).astype(np.int32)
        end = int(self.origins.max(initial=0)) + self.lanes
        self.x = self.fences.given(own.numbers((own.shape[1] - 1) * self.stride + end))

    @property
    def rows(self) -> int:
        return self.matrix.shape[0]

    def inputs(self) -> np.ndarray:
        """(columns, tiles, vectors, lanes) in float64."""
        starts = np.arange(self.matrix.shape[1])[:, None, None] * self.stride + self.origins
        return self.x[starts[..., None] + np.arange(self.lanes)].astype(np.float64)

    def places(self, count: int) -> np.ndarray:
        """Where so many vectors go: in any order, none upon another, with a gap in front and behind each."""
        return (self.matrix.rng.permutation(count) * (self.lanes + 1)).astype(np.int32)

    def where(self, *arrays: np.ndarray) -> list[int]:
        """The addresses of the matrix's starts and columns, and of copies to read of further arrays."""
        given = [self.block.starts, self.block.columns, *(self.fences.given(array) for array in arrays)]
        return [address(array) for array in given]


@st.composite
def scattered(draw: st.DrawFn, lanes: int, vectors: int | None = None) -> Scattered:
    matrix = draw(matrices(rows=12, columns=40))
    own = draw(st.integers(1, 4)) if vectors is None else vectors
    stride = draw(st.sampled_from([lanes, 7, 3 * lanes + 1]))
    return Scattered(matrix, draw(st.integers(1, VECTORS)), own, lanes, stride, Fences(draw(st.booleans())))


def spread(vectors: np.ndarray, places: np.ndarray, lanes: int) -> np.ndarray:
    """Vectors (rows, count, lanes) at their places in rows of NaN; each row as long as it has to be."""
    flat = np.full((len(vectors), (lanes + 1) * len(places)), np.nan, dtype=np.float32)
    flat[:, places[:, None] + np.arange(lanes)] = vectors
    return flat


def gathered(flat: np.ndarray, places: np.ndarray, lanes: int) -> np.ndarray:
    """The vectors (rows, count, lanes), which leave NaN behind them: what is none afterwards was written besides."""
    at = places[:, None] + np.arange(lanes)
    found = flat[:, at].copy()
    flat[:, at] = np.nan
    return found
