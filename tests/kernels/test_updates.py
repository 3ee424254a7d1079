"""Optimizer updates and changes of order, against float64."""

from __future__ import annotations

import numpy as np
from fenced_arrays import Fences, address
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.kernels.compiler import compiled
from tombola.kernels.target import Target
from tombola.kernels.updates import ADAM, GATHER, SGD

vectors = st.integers(1, 9)
seeds = st.integers(0, 99)


def vector(random: np.random.Generator, count: int) -> np.ndarray:
    return (random.standard_normal(count) * 10.0 ** random.integers(-6, 2, count)).astype(np.float32)


def written(fences: Fences, numbers: np.ndarray) -> np.ndarray:
    room = fences.room(numbers.shape)
    room[...] = numbers
    return room


@settings(max_examples=40)
@given(times=vectors, seed=seeds, at_end=st.booleans())
def test_sgd(target: Target, times: int, seed: int, at_end: bool) -> None:
    random, fences, count = np.random.default_rng(seed), Fences(at_end), times * target.lanes
    value, gradient, momentum = (vector(random, count) for _ in range(3))
    rate, keep, decay = chosen = np.array([0.1, 0.9, 1e-2], np.float32)
    v, m = written(fences, value), written(fences, momentum)
    g, settings_ = fences.given(gradient), fences.given(chosen)
    compiled(SGD, target).call(count, address(v), address(g), address(m), address(settings_))
    fences.check()
    after = np.float64(keep) * momentum + (gradient + np.float64(decay) * value)
    np.testing.assert_allclose(m, after, rtol=1e-6, atol=1e-7 * np.abs(momentum).max())
    np.testing.assert_allclose(v, value - np.float64(rate) * after, rtol=1e-6, atol=1e-6)


@settings(max_examples=40)
@given(times=vectors, seed=seeds, at_end=st.booleans(), decoupled=st.booleans())
def test_adam(target: Target, times: int, seed: int, at_end: bool, decoupled: bool) -> None:
    """The formulas of the paper, and what neither has a gradient nor a value stays 0."""
    random, fences, count = np.random.default_rng(seed), Fences(at_end), times * target.lanes
    value, gradient, mean = (vector(random, count) for _ in range(3))
    square = vector(random, count) ** 2
    for numbers in (value, gradient, mean, square):
        numbers[0] = 0
    chosen = np.array([0.01, 0.1, 0.999, 0.001, 3.0, 1e-8, 0 if decoupled else 0.1, 0.99 if decoupled else 1], "f4")
    step, toward, beta2, rest, correction, epsilon, decay, shrink = chosen.astype(np.float64)
    v, m, s = (written(fences, numbers) for numbers in (value, mean, square))
    g, settings_ = fences.given(gradient), fences.given(chosen)
    compiled(ADAM, target).call(count, *map(address, (v, g, m, s, settings_)))
    fences.check()
    exact_gradient = gradient + decay * value
    exact_mean = mean + toward * (exact_gradient - mean)
    exact_square = beta2 * square + rest * exact_gradient**2
    np.testing.assert_allclose(m, exact_mean, rtol=1e-5, atol=1e-6 * np.abs(mean).max())
    np.testing.assert_allclose(s, exact_square, rtol=1e-6)
    exact = shrink * value - step * exact_mean / (np.sqrt(exact_square) * correction + epsilon)
    np.testing.assert_allclose(v, exact, rtol=1e-5, atol=1e-5)
    assert v[0] == m[0] == s[0] == 0


@settings(max_examples=40)
@given(count=st.integers(0, 70), of=st.integers(1, 50), seed=seeds, at_end=st.booleans())
def test_gather(target: Target, count: int, of: int, seed: int, at_end: bool) -> None:
    random, fences = np.random.default_rng(seed), Fences(at_end)
    values, places = np.arange(of, dtype=np.float32), random.integers(0, of, count).astype(np.int32)
    given_places, given_values, out = fences.given(places), fences.given(values), fences.room(count)
    compiled(GATHER, target).call(count, address(given_places), address(given_values), address(out))
    fences.check()
    assert np.array_equal(out, values[places])
