"""Copies of rows, zeros, and elementwise arithmetic on the activations of convolutions."""

from __future__ import annotations

import numpy as np
import pytest
from fenced_arrays import Fences, address
from hypothesis import given, settings
from hypothesis import strategies as st
from small_matrices import assert_sums
from small_windows import laid_out, pairs, seen_in

from tombola.kernels.compiler import compiled
from tombola.kernels.copies import CLEAR, CLEAR_BORDER, COPY_ROWS, combine
from tombola.kernels.target import Target
from tombola.kernels.windows import ImageLayout, Pair, Panel


@settings(max_examples=150)
@given(
    channels=st.integers(1, 4),
    size=st.tuples(st.integers(1, 6), st.integers(1, 70)),
    gaps=st.tuples(pairs(0, 5), pairs(0, 5)),
    at_end=st.booleans(),
)
def test_copy_rows(target: Target, channels: int, size: Pair, gaps: tuple[Pair, Pair], at_end: bool) -> None:
    """From and to any layout; neither array goes on behind the last number."""
    fences, layouts = Fences(at_end), []
    for between_rows, between_channels in gaps:
        pitch = size[1] + between_rows
        layouts.append(ImageLayout(channels, *size, pitch, size[0] * pitch + between_channels))
    own, result = layouts
    numbers = np.arange(1, channels * size[0] * size[1] + 1, dtype=np.float32).reshape(channels, *size)
    x = fences.given(laid_out(numbers, own)[: own.size - sum(gaps[0])])
    y = fences.room(result.size - sum(gaps[1]))
    layout = [(address(array), form.plane, form.pitch) for array, form in ((x, own), (y, result))]
    compiled(COPY_ROWS, target).call(channels, *size, *layout[0], *layout[1])
    fences.check()
    assert np.array_equal(seen_in(y, result), numbers)
    seen_in(y, result)[...] = np.nan
    assert np.isnan(y).all(), "the kernel wrote between the rows"


@pytest.mark.parametrize("strange", [np.nan, np.inf, -0.0, 1e-45])
def test_strange_numbers_pass_bit_by_bit(target: Target, strange: float) -> None:
    width = target.lanes + 7  # a vector, four floats, three single ones
    x, y = np.full((2, width), strange, np.float32), np.ones((2, width + 1), np.float32)
    compiled(COPY_ROWS, target).call(1, 2, width, address(x), 0, width, address(y), 0, width + 1)
    assert y[:, :width].tobytes() == x.tobytes()
    assert (y[:, width] == 1).all()


@settings(max_examples=60)
@given(count=st.integers(0, 100), at_end=st.booleans())
def test_clear(target: Target, count: int, at_end: bool) -> None:
    fences = Fences(at_end)
    y = fences.room(count)
    compiled(CLEAR, target).call(count, address(y))
    fences.check()
    assert y.tobytes() == bytes(4 * count)  # no -0


@settings(max_examples=80)
@given(
    channels=st.integers(1, 3),
    size=pairs(1, 6),
    border=st.integers(0, 3),
    vectors=st.integers(1, 3),
    at_end=st.booleans(),
)
def test_clear_border(target: Target, channels: int, size: Pair, border: int, vectors: int, at_end: bool) -> None:
    own, fences = Panel(channels, *size, border, vectors * target.lanes), Fences(at_end)
    y = fences.room((channels, own.rows, own.columns, own.examples))
    row, edge = own.columns * own.examples, border * own.examples
    compiled(CLEAR_BORDER, target).call(channels, address(y), own.plane, own.rows, row, border, edge)
    fences.check()
    inner = y[:, border : border + size[0], border : border + size[1]]
    assert np.isnan(inner).all(), "the kernel wrote beside the border"
    inner[...] = 0
    assert y.tobytes() == bytes(y.nbytes)


@pytest.mark.parametrize(("border_rows", "border_columns"), [(2, 0), (0, 2), (1, 2)])
def test_borders_of_other_sides(target: Target, border_rows: int, border_columns: int) -> None:
    """Channels with gaps between them, which stay."""
    lanes, fences = target.lanes, Fences(at_end=True)
    flat = fences.room(2 * 7 * 6 * lanes + 5)
    plane = 7 * 6 * lanes + 5
    arguments = (plane, 7, 6 * lanes, border_rows, border_columns * lanes)
    compiled(CLEAR_BORDER, target).call(2, address(flat), *arguments)
    fences.check()
    for own in (flat[: plane - 5], flat[plane:]):
        inner = own.reshape(7, 6, lanes)[border_rows : 7 - border_rows, border_columns : 6 - border_columns]
        assert np.isnan(inner).all()
        inner[...] = 0
        assert (own == 0).all()
    assert np.isnan(flat[plane - 5 : plane]).all()


PLACES = ["apart", "in x", "in other", "x is other", "all one"]


@settings(max_examples=150)
@given(
    add=st.booleans(),
    relu=st.booleans(),
    channels=st.integers(1, 4),
    vectors=st.integers(0, 5),
    gap=st.integers(0, 5),
    place=st.sampled_from(PLACES),
    seed=st.integers(0, 999),
    at_end=st.booleans(),
)
def test_combine(
    target: Target,
    add: bool,
    relu: bool,
    channels: int,
    vectors: int,
    gap: int,
    place: str,
    seed: int,
    at_end: bool,
) -> None:
    """x · scale + shift, plus other: one rounding each. Also where some of the arrays are the same."""
    random, fences = np.random.default_rng(seed), Fences(at_end)
    count = vectors * target.lanes
    stride = count + gap
    first, second = random.standard_normal((2, channels, count)).astype(np.float32)
    if place in ("x is other", "all one"):
        second = first
    scale, shift = random.standard_normal((2, channels)).astype(np.float32)

    def flat(numbers: np.ndarray) -> np.ndarray:
        with_gaps = np.full((channels, stride), np.nan, dtype=np.float32)
        with_gaps[:, :count] = numbers
        return with_gaps.reshape(-1)[: channels * stride - gap]

    y = fences.room(max(channels * stride - gap, 0))
    x = y if place in ("in x", "all one") else fences.given(flat(first))
    other = {"x is other": x, "all one": y, "in other": y}.get(place)
    if other is None:
        other = fences.given(flat(second))
    if x is y:
        y[...] = flat(first)
    elif other is y:
        y[...] = flat(second)
    factors, constants = fences.given(scale), fences.given(shift)
    beside = address(other) if add else 0  # nobody looks at nothing
    compiled(combine(add, relu), target).call(
        channels, count, address(x), address(y), stride, address(factors), address(constants), beside
    )
    fences.check()
    factor = scale.astype(np.float64)[:, None]
    exact = first * factor + shift[:, None]
    sizes = np.abs(first) * np.abs(factor) + np.abs(shift)[:, None]
    if add:
        exact, sizes = exact + second, sizes + np.abs(second)
    found = np.lib.stride_tricks.as_strided(y, (channels, count), (4 * stride, 4))
    if count:
        assert_sums(found.copy(), np.maximum(exact, 0) if relu else exact, sizes, 1 + add)
        found[...] = np.nan
    assert np.isnan(y).all(), "the kernel wrote between the channels"


@pytest.mark.parametrize("add", [False, True])
def test_a_number_that_is_none_is_not_hidden(target: Target, add: bool) -> None:
    """ReLU keeps NaN, as torch's does."""
    x = np.resize(np.array([np.nan, np.inf, -np.inf, -1.0], np.float32), (1, 4 * target.lanes))
    y, ones, zeros = np.zeros_like(x), np.ones(1, np.float32), np.zeros(4 * target.lanes, np.float32)
    compiled(combine(add, True), target).call(
        1, x.size, address(x), address(y), x.size, address(ones), address(zeros), address(zeros)
    )
    assert np.array_equal(y, np.resize(np.array([np.nan, np.inf, 0, 0], np.float32), x.shape), equal_nan=True)
