"""Masks, batches and numbers for kernels, and how far float32 sums may be from exact ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

BATCHES = [1, 3, 16, 60, 64, 100]
UNIT = 2.0**-24
"""Half the distance between 1 and the next float32: the relative error of one rounding."""


@dataclass(frozen=True)
class Matrix:
    """A sparse matrix and its bias. `rng` makes further numbers of the same kind: whole ones have exact sums."""

    keep: np.ndarray
    block: int
    whole: bool
    rng: np.random.Generator

    def numbers(self, *shape: int) -> np.ndarray:
        if self.whole:
            return self.rng.integers(-9, 10, shape).astype(np.float32)
        return self.rng.standard_normal(shape).astype(np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        return self.keep.shape


@st.composite
def matrices(draw: st.DrawFn, rows: int = 40, columns: int = 90) -> Matrix:
    """Any density by row: among them rows without nonzeros, dense rows, one input, one output, several blocks."""
    shape = (draw(st.integers(1, rows)), draw(st.integers(1, columns)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    densities = draw(st.sampled_from([(0.0, 0.1, 1.0), (0.0,), (1.0,), (0.05,), (0.2, 0.5)]))
    keep = rng.random(shape) < rng.choice(densities, (shape[0], 1))
    block = draw(st.one_of(st.just(shape[1]), st.integers(-(-shape[1] // 4), shape[1])))
    return Matrix(keep, block, draw(st.booleans()), rng)


def padded(count: int, lanes: int) -> int:
    """The width of a panel of `count` examples."""
    return -(-count // lanes) * lanes


def assert_sums(found: np.ndarray, exact: np.ndarray, magnitudes: np.ndarray, terms: np.ndarray | int) -> None:
    """`found` is `exact` but for the roundings of a sum of `terms` products, whose sizes add up to `magnitudes`."""
    assert np.isfinite(found).all()
    error = np.abs(found - exact)
    excess = error - UNIT * terms / (1 - UNIT * terms) * magnitudes
    place = np.unravel_index(excess.argmax(), excess.shape)
    assert (excess <= 0).all(), f"{error.max()} is more than rounding explains, at {place}"


def sum_terms(keep: np.ndarray) -> np.ndarray:
    """Roundings of a row's sum: one for each nonzero, three more to join four chains; a row of none has no error."""
    count = keep.sum(1)
    return np.where(count > 0, count + 3, 0)
