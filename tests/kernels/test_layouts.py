"""Panels: every number where it belongs, zeros behind the last example, nothing read or written outside."""

from __future__ import annotations

import numpy as np
import pytest
from fenced_arrays import Fences, address
from hypothesis import given, settings
from hypothesis import strategies as st
from small_matrices import BATCHES, padded

from tombola.kernels.compiler import compiled
from tombola.kernels.layouts import FROM_PANEL, GATHER_PANEL, TO_PANEL
from tombola.kernels.target import Target

counts = st.one_of(st.sampled_from(BATCHES), st.integers(1, 40))
features = st.integers(1, 70)


def examples(count: int, features: int) -> np.ndarray:
    """No two numbers are equal."""
    return np.arange(1, count * features + 1, dtype=np.float32).reshape(count, features)


@settings(max_examples=60)
@given(count=counts, features=features, at_end=st.booleans())
def test_to_panel(target: Target, count: int, features: int, at_end: bool) -> None:
    fences, width, numbers = Fences(at_end), padded(count, target.lanes), examples(count, features)
    x, y = fences.given(numbers), fences.room((features, width))
    compiled(TO_PANEL, target).call(count, features, address(x), address(y), width)
    fences.check()
    assert np.array_equal(y[:, :count], numbers.T)
    assert (y[:, count:] == 0).all()


@settings(max_examples=60)
@given(count=counts, features=features, of=st.integers(1, 50), seed=st.integers(0, 99), at_end=st.booleans())
def test_gather_panel(target: Target, count: int, features: int, of: int, seed: int, at_end: bool) -> None:
    """Positions in any order, some of them twice, the first and the last of all examples among them."""
    fences, width, numbers = Fences(at_end), padded(count, target.lanes), examples(of, features)
    chosen = np.random.default_rng(seed).integers(0, of, count)
    chosen[0], chosen[-1] = 0, of - 1
    positions, x, y = fences.given(chosen), fences.given(numbers), fences.room((features, width))
    compiled(GATHER_PANEL, target).call(address(positions), count, features, address(x), address(y), width)
    fences.check()
    assert np.array_equal(y[:, :count], numbers[chosen].T)
    assert (y[:, count:] == 0).all()


@settings(max_examples=60)
@given(count=counts, features=features, more=st.integers(0, 2), at_end=st.booleans())
def test_from_panel(target: Target, count: int, features: int, more: int, at_end: bool) -> None:
    """What stands in the panel's further examples, here NaN, goes nowhere."""
    width = padded(count, target.lanes) + more * target.lanes
    fences, numbers = Fences(at_end), examples(count, features)
    panel = np.full((features, width), np.nan, dtype=np.float32)
    panel[:, :count] = numbers.T
    x, y = fences.given(panel), fences.room((count, features))
    compiled(FROM_PANEL, target).call(count, features, address(x), width, address(y))
    fences.check()
    assert np.array_equal(y, numbers)


@pytest.mark.parametrize("strange", [np.nan, np.inf, -0.0, 1e-45])
def test_strange_numbers_pass_bit_by_bit(target: Target, strange: float) -> None:
    count, features = target.lanes + 1, target.lanes + 1  # a whole square and what is left of it
    width = padded(count, target.lanes)
    x = np.full((count, features), strange, dtype=np.float32)
    panel, y = np.ones((features, width), np.float32), np.ones((count, features), np.float32)
    compiled(TO_PANEL, target).call(count, features, address(x), address(panel), width)
    compiled(FROM_PANEL, target).call(count, features, address(panel), width, address(y))
    assert y.tobytes() == x.tobytes()
    assert panel[:, count:].tobytes() == bytes(panel[:, count:].nbytes)
