"""Pools: of vectors that lie anywhere, of images and panels as torch has them, and means of whole images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fenced_arrays import Fences, address
from hypothesis import given, settings
from hypothesis import strategies as st
from small_matrices import assert_sums
from small_windows import NAN, inner, laid_out, pairs, seen_in, to_read
from torch.nn import functional

from tombola.kernels.compiler import compiled
from tombola.kernels.expansions import all_windows, expand
from tombola.kernels.pools import PLANE_MEANS, PoolKind, pool
from tombola.kernels.target import Target
from tombola.kernels.windows import ImageLayout, Pair, Panel, Window, image_layout


def pooled(
    target: Target,
    fences: Fences,
    kind: PoolKind,
    x: np.ndarray,
    origins: np.ndarray,
    goals: np.ndarray,
    scales: np.ndarray,
    size: int,
) -> np.ndarray:
    """Channels of `size` floats from the channels of x, by tables."""
    tables = [address(fences.given(table.astype(np.int32))) for table in (origins, goals)]
    scale = address(fences.given(scales.astype(np.float32))) if kind is PoolKind.MEAN else 0  # nobody looks at it
    inputs, y = fences.given(x), fences.room((len(x), size))
    compiled(pool(kind), target).call(
        len(x), address(inputs), x.shape[1], address(y), size, *origins.shape, *tables, scale
    )
    fences.check()
    return y


@settings(max_examples=100)
@given(
    kind=st.sampled_from(PoolKind),
    channels=st.integers(1, 3),
    count=st.integers(1, 20),
    taps=st.integers(1, 10),
    strange=st.booleans(),
    seed=st.integers(0, 999),
    at_end=st.booleans(),
)
def test_vectors_that_lie_anywhere(
    target: Target,
    kind: PoolKind,
    channels: int,
    count: int,
    taps: int,
    strange: bool,
    seed: int,
    at_end: bool,
) -> None:
    """Overlapping or the same ones to read, at the very ends of x; y has gaps, which stay as they were."""
    random, lanes = np.random.default_rng(seed), target.lanes
    x = random.standard_normal((channels, 5 * lanes + 3)).astype(np.float32)
    if strange:
        x[random.random(x.shape) < 0.05] = np.nan
        x[random.random(x.shape) < 0.05] = np.inf
    origins = random.integers(0, x.shape[1] - lanes + 1, (count, taps))
    origins[0, 0], origins[-1, -1] = 0, x.shape[1] - lanes
    goals = random.permutation(count) * (lanes + 1)
    scales = random.random(count).astype(np.float32)
    y = pooled(target, Fences(at_end), kind, x, origins, goals, scales, count * (lanes + 1))

    seen = x[:, origins[..., None] + np.arange(lanes)]  # (channels, outputs, taps, lanes)
    places = goals[:, None] + np.arange(lanes)
    found = y[:, places]
    if kind is PoolKind.MAX:
        assert np.array_equal(found, seen.max(2), equal_nan=True)
    else:
        factors = scales.astype(np.float64)[:, None]
        exact, sizes = (numbers.astype(np.float64).sum(2) * factors for numbers in (seen, np.abs(seen)))
        strange_ones = ~np.isfinite(exact)
        assert np.array_equal(found[strange_ones], exact[strange_ones].astype(np.float32), equal_nan=True)
        inside, total, size = (np.where(strange_ones, 0, numbers) for numbers in (found, exact, sizes))
        assert_sums(inside, total, size, taps)
    y[:, places] = np.nan
    assert np.isnan(y).all(), "the kernel wrote between its vectors"


pool_windows = st.builds(Window, pairs(1, 4), stride=pairs(1, 3), padding=pairs(0, 2)).filter(
    lambda own: all(2 * padding <= kernel for padding, kernel in zip(own.padding, own.kernel, strict=True))
)


def numbers_of(own: ImageLayout | Panel, examples: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.standard_normal((examples, own.channels, own.height, own.width)).astype(np.float32)


def by_torch(kind: PoolKind, x: np.ndarray, window: Window, count_padding: bool) -> np.ndarray:
    numbers = torch.from_numpy(x).double()
    if kind is PoolKind.MAX:
        return functional.max_pool2d(numbers, window.kernel, window.stride, window.padding).numpy()
    means = functional.avg_pool2d(
        numbers, window.kernel, window.stride, window.padding, count_include_pad=count_padding
    )
    return means.numpy()


def shares(window: Window, own: ImageLayout | Panel, count_padding: bool) -> np.ndarray:
    """Of each output 1 / (how many inputs it counts): 1 / (the sum of ones) is what torch divides by."""
    if count_padding:
        return np.full(window.outputs(own.height, own.width), 1 / np.prod(window.kernel))
    ones = torch.ones(1, 1, own.height, own.width)
    means = functional.avg_pool2d(ones, window.kernel, window.stride, window.padding)[0, 0].numpy()
    return 1 / (means * np.prod(window.kernel)).round()


def assert_pools(kind: PoolKind, found: np.ndarray, x: np.ndarray, window: Window, count_padding: bool) -> None:
    """`found` is what torch has: of means but for roundings: one for each input, of the share, of the product."""
    exact = by_torch(kind, x, window, count_padding)
    terms = 0 if kind is PoolKind.MAX else int(np.prod(window.kernel)) + 2
    assert_sums(found, exact, by_torch(PoolKind.MEAN, np.abs(x), window, count_padding), terms)


@settings(max_examples=60)
@given(
    kind=st.sampled_from(PoolKind),
    window=pool_windows,
    size=st.tuples(st.integers(4, 9), st.integers(4, 40)),
    seed=st.integers(0, 99),
    at_end=st.booleans(),
)
def test_images_as_torch(target: Target, kind: PoolKind, window: Window, size: Pair, seed: int, at_end: bool) -> None:
    """One example, its windows copied to whole vectors; what fills the border changes no largest value and no sum."""
    own, fences, lanes = image_layout(2, *size, target.lanes), Fences(at_end), target.lanes
    result = image_layout(2, *window.outputs(*size), lanes)
    expansion, numbers = all_windows(own, window, result), numbers_of(own, 1, seed)
    x = fences.given(to_read(numbers[0], own, expansion))
    copies = fences.room((2, expansion.size))
    sources, inside = fences.given(expansion.sources), fences.given(expansion.inside)
    fill = -np.inf if kind is PoolKind.MAX else 0.0
    compiled(expand(expansion.piece, expansion.step, fill), target).call(
        2, address(x, expansion.slack), own.plane, address(copies), expansion.size, len(sources),
        address(sources), address(inside),
    )  # fmt: skip
    goals = np.arange(0, result.plane, lanes)
    origins = goals[:, None] + np.arange(np.prod(window.kernel)) * result.plane
    scales = np.full(len(goals), 1 / np.prod(window.kernel))
    y = pooled(target, fences, kind, copies, origins, goals, scales, result.plane)
    assert_pools(kind, seen_in(y.reshape(-1), result)[None], numbers, window, True)


@settings(max_examples=60)
@given(
    kind=st.sampled_from(PoolKind),
    window=pool_windows,
    size=pairs(4, 9),
    vectors=st.integers(1, 2),
    borders=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    spares=pairs(0, 2),
    count_padding=st.booleans(),
    seed=st.integers(0, 99),
    at_end=st.booleans(),
)
def test_panels_as_torch(
    target: Target,
    kind: PoolKind,
    window: Window,
    size: Pair,
    vectors: int,
    borders: Pair,
    spares: Pair,
    count_padding: bool,
    seed: int,
    at_end: bool,
) -> None:
    """On a border of what changes nothing, from and to panels with more border than that, which stays as it is."""
    lanes, examples = target.lanes, vectors * target.lanes
    own = Panel(2, *size, max(window.padding) + borders[0], examples, spares[0])
    result = Panel(2, *window.outputs(*size), borders[1], examples, spares[1])
    numbers = numbers_of(own, examples, seed)
    x = np.full(own.size, NAN)
    inner(x, own, window.padding)[...] = -np.inf if kind is PoolKind.MAX else 0
    inner(x, own)[...] = numbers.transpose(1, 2, 3, 0)
    origins, goals = [], []
    for row in range(result.height):
        for column in range(result.width):
            above, left = row * window.stride[0] - window.padding[0], column * window.stride[1] - window.padding[1]
            taps = [own.at(above + down, left + right) for down, right in np.ndindex(window.kernel)]
            for chunk in range(0, examples, lanes):
                origins.append([tap + chunk for tap in taps])
                goals.append(result.at(row, column) + chunk)
    scales = np.repeat(shares(window, own, count_padding).reshape(-1), vectors)
    tables = np.array(origins), np.array(goals), scales
    y = pooled(target, Fences(at_end), kind, x.reshape(2, -1), *tables, result.plane)
    assert_pools(kind, inner(y, result).transpose(3, 0, 1, 2).copy(), numbers, window, count_padding)
    inner(y, result)[...] = np.nan
    assert np.isnan(y).all(), "the kernel wrote on the border"


def test_one_tap_is_a_copy_bit_by_bit(target: Target) -> None:
    x = np.resize(np.array([np.inf, -np.inf, -0.0, 1e-45, np.nan], np.float32), (1, 4 * target.lanes))
    origins = np.array([[3], [2], [1], [0]]) * target.lanes
    goals = np.arange(4) * target.lanes
    y = pooled(target, Fences(at_end=True), PoolKind.MAX, x, origins, goals, np.zeros(0), x.shape[1])
    assert y.tobytes() == x.reshape(4, -1)[::-1].tobytes()


@settings(max_examples=100)
@given(
    channels=st.integers(1, 4),
    size=st.tuples(st.integers(1, 9), st.integers(1, 70)),
    gaps=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    seed=st.integers(0, 99),
    at_end=st.booleans(),
)
def test_plane_means(target: Target, channels: int, size: Pair, gaps: Pair, seed: int, at_end: bool) -> None:
    """What lies between rows and channels is NaN; behind the last number nothing may be read."""
    pitch = size[1] + gaps[0]
    own = ImageLayout(channels, *size, pitch, size[0] * pitch + gaps[1])
    numbers = numbers_of(own, 1, seed)[0]
    fences = Fences(at_end)
    x, y = fences.given(laid_out(numbers, own)[: own.size - sum(gaps)]), fences.room(channels)
    compiled(PLANE_MEANS, target).call(channels, address(x), own.plane, *size, pitch, address(y))
    fences.check()
    assert_sums(y, numbers.astype(np.float64).mean((1, 2)), np.abs(numbers).mean((1, 2), float), int(np.prod(size)) + 1)


@pytest.mark.parametrize("size", [(4, 4), (1, 1), (7, 7), (32, 32)])
def test_plane_means_of_equal_numbers(target: Target, size: Pair) -> None:
    """Nothing is counted twice or left out: sums of whole numbers are exact."""
    own = image_layout(3, *size, target.lanes)
    x, y = (
        laid_out(np.broadcast_to(np.array([[[3]], [[np.inf]], [[-5]]], np.float32), (3, *size)), own),
        np.zeros(3, "f4"),
    )
    compiled(PLANE_MEANS, target).call(3, address(x), own.plane, *size, own.pitch, address(y))
    assert y.tolist() == [3, np.inf, -5]
