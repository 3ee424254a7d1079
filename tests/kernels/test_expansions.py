"""Copies of images in which windows are whole vectors: what torch's `unfold` has, and the fill everywhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from fenced_arrays import Fences, address
from hypothesis import given, settings
from hypothesis import strategies as st
from small_windows import any_image, gaps, result_image, sizes, to_read, windows
from torch.nn import functional

from tombola.kernels.compiler import compiled
from tombola.kernels.expansions import Expansion, all_windows, expand, rows_seen, shifted_rows
from tombola.kernels.target import Target
from tombola.kernels.windows import ImageLayout, Window, image_layout

FILLS = [0.0, -np.inf]


def examples(own: ImageLayout) -> np.ndarray:
    """No two numbers are equal, none is 0."""
    shape = own.channels, own.height, own.width
    return np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)


def expanded(target: Target, fences: Fences, own: ImageLayout, expansion: Expansion, fill: float) -> np.ndarray:
    """(channels, floats of a copy). All that may be read of the image's surroundings is `slack` floats of NaN."""
    x = fences.given(to_read(examples(own), own, expansion))
    sources, inside = fences.given(expansion.sources), fences.given(expansion.inside)
    y = fences.room((own.channels, expansion.size))
    filled = None if expansion.whole else fill
    compiled(expand(expansion.piece, expansion.step, filled), target).call(
        own.channels, address(x, expansion.slack), own.plane, address(y), expansion.size, len(sources),
        address(sources), address(inside),
    )  # fmt: skip
    fences.check()
    return y


def unfolded(
    own: ImageLayout, window: Window, kernel: tuple[int, int], step: tuple[int, int], fill: float
) -> np.ndarray:
    """(channels, positions of the kernel, rows, columns) of the bordered image."""
    down, across = window.padding
    x = functional.pad(torch.from_numpy(examples(own)), (across, across, down, down), value=fill)
    columns = functional.unfold(x[None], kernel, stride=step)
    rows = (x.shape[1] - kernel[0]) // step[0] + 1
    return columns.reshape(own.channels, kernel[0] * kernel[1], rows, -1).numpy()


def assert_copies(found: np.ndarray, expected: np.ndarray, fill: float) -> None:
    """`found` (..., rows, columns) begins with `expected` and has nothing but the fill behind."""
    rows, columns = expected.shape[2:]
    assert np.array_equal(found[:, :, :rows, :columns], expected)
    assert (found[:, :, rows:] == fill).all()
    assert (found[:, :, :, columns:] == fill).all()


@settings(max_examples=80)
@given(
    window=windows,
    data=st.data(),
    gap=gaps,
    whole_rows=st.booleans(),
    fill=st.sampled_from(FILLS),
    at_end=st.booleans(),
)
def test_all_windows(
    target: Target, window: Window, data: st.DataObject, gap: int | None, whole_rows: bool, fill: float, at_end: bool
) -> None:
    own = any_image(2, data.draw(sizes(window)), target.lanes, gap)
    result = result_image(1, window.outputs(own.height, own.width), target.lanes, whole_rows)
    found = expanded(target, Fences(at_end), own, all_windows(own, window, result), fill)
    planes = found.reshape(own.channels, -1, result.plane)
    rows = result.plane // result.pitch
    behind = planes[:, :, rows * result.pitch :]  # a plane may end within a row
    assert (behind == fill).all()
    grid = planes[:, :, : rows * result.pitch].reshape(*planes.shape[:2], rows, result.pitch)
    assert_copies(grid, unfolded(own, window, window.reach, window.step, fill), fill)


@settings(max_examples=80)
@given(
    window=windows,
    data=st.data(),
    gap=gaps,
    whole_rows=st.booleans(),
    fill=st.sampled_from(FILLS),
    at_end=st.booleans(),
)
def test_shifted_rows(
    target: Target, window: Window, data: st.DataObject, gap: int | None, whole_rows: bool, fill: float, at_end: bool
) -> None:
    own = any_image(2, data.draw(sizes(window)), target.lanes, gap)
    result = result_image(1, window.outputs(own.height, own.width), target.lanes, whole_rows)
    found = expanded(target, Fences(at_end), own, shifted_rows(own, window, result), fill)
    rows, reach = rows_seen(window, result), window.reach[1]
    expected = unfolded(own, window, (1, reach), (1, window.step[1]), fill)
    assert_copies(found.reshape(own.channels, reach, rows, result.pitch), expected[:, :, :rows], fill)


@pytest.mark.parametrize("expansion_of", [all_windows, shifted_rows])
@pytest.mark.parametrize("width", [4, 8, 16, 20, 32])
def test_pieces_are_the_largest_that_rows_are_made_of(
    expansion_of: Callable[[ImageLayout, Window, ImageLayout], Expansion], width: int
) -> None:
    own = image_layout(1, 3, width, 16)
    expansion = expansion_of(own, Window((3, 3), padding=(1, 1)), own)
    assert expansion.piece == {4: 4, 8: 8, 16: 16, 20: 4, 32: 16}[width]
    assert len(expansion.sources) == len(expansion.inside) == expansion.size // expansion.piece


def test_strange_numbers_pass_bit_by_bit(target: Target) -> None:
    """A copy is no arithmetic."""
    own = image_layout(1, 1, 16, target.lanes)
    expansion = all_windows(own, Window((1, 1)), own)
    x = np.resize(np.array([np.inf, -np.inf, -0.0, 1e-45], np.float32), own.size)
    y = np.zeros(expansion.size, np.float32)
    assert expansion.whole
    for fill in (None, 0.0):
        y[...] = 0
        compiled(expand(expansion.piece, 1, fill), target).call(
            1, address(x), own.plane, address(y), expansion.size, len(expansion.sources),
            address(expansion.sources), address(expansion.inside),
        )  # fmt: skip
        assert y.tobytes() == x.tobytes()


def test_what_is_whole_is_copied_without_looking(target: Target) -> None:
    """Windows that see no border and fill their vectors; one column less, and there is something to leave out."""
    fences, own = Fences(at_end=True), any_image(2, (6, 18), target.lanes, None)
    window = Window((3, 3))
    result = image_layout(1, 4, 16, target.lanes)
    expansion = all_windows(own, window, result)
    assert expansion.whole
    found = expanded(target, fences, own, expansion, 0.0).reshape(2, 9, 4, 16)
    assert np.array_equal(found, unfolded(own, window, (3, 3), (1, 1), 0.0))
    assert not all_windows(own, window, replace(result, width=15)).whole
    assert not all_windows(own, replace(window, padding=(1, 1)), result).whole
