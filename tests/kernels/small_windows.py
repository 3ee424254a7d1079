"""Windows, images and convolutions for kernels, and what torch makes of them in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch.nn import functional

from tombola.kernels.expansions import Expansion
from tombola.kernels.windows import ImageLayout, Pair, Panel, Window, image_layout

NAN = np.float32(np.nan)


def pairs(least: int, most: int) -> st.SearchStrategy[Pair]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


windows = st.builds(
    Window, pairs(1, 5), stride=pairs(1, 3), padding=pairs(0, 3), dilation=pairs(1, 2), pool=st.integers(1, 2)
)
"""Among them windows in which some see nothing but the border."""


@st.composite
def sizes(draw: st.DrawFn, window: Window, rows: int = 4, columns: int = 36) -> Pair:
    """The height and width of inputs from which a window makes outputs, about as many as said at most."""
    outputs = draw(st.integers(1, rows)), draw(st.integers(1, columns))
    unseen = draw(pairs(0, 5))  # at the end, where no whole window is left
    height, width = (
        max(1, (wanted - 1) * step + reach - 2 * padding + more % step)
        for wanted, step, reach, padding, more in zip(
            outputs, window.step, window.reach, window.padding, unseen, strict=True
        )
    )
    return height, width


@dataclass(frozen=True)
class Convolution:
    """A sparse convolution of inputs (channels, `size`), `block` channels at a time.

    `rng` makes further numbers: whole ones have exact sums.
    """

    window: Window
    size: Pair
    groups: int
    keep: np.ndarray
    block: int
    whole: bool
    rng: np.random.Generator

    def numbers(self, *shape: int) -> np.ndarray:
        if self.whole:
            return self.rng.integers(-9, 10, shape).astype(np.float32)
        return self.rng.standard_normal(shape).astype(np.float32)

    @property
    def inputs(self) -> int:
        return self.keep.shape[1] * self.groups

    @property
    def outputs(self) -> int:
        return len(self.keep)

    @property
    def result(self) -> Pair:
        """The height and width of the outputs."""
        return self.window.outputs(*self.size)

    @property
    def blocks(self) -> int:
        return -(-self.inputs // self.block)

    def exact(self, x: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Of examples (examples, channels, height, width), in float64."""
        window = self.window
        inputs, kernels, constants = (torch.from_numpy(array).double() for array in (x, weights, bias))
        found = functional.conv2d(
            inputs, kernels, constants, window.stride, window.padding, window.dilation, self.groups
        )
        return functional.max_pool2d(found, window.pool).numpy()


@st.composite
def convolutions(draw: st.DrawFn) -> Convolution:
    """Any density by output and by input: among them outputs and blocks of inputs without nonzeros, and dense ones."""
    window, groups = draw(windows), draw(st.integers(1, 3))
    shape = groups * draw(st.integers(1, 4)), draw(st.integers(1, 4)), *window.kernel
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    densities = draw(st.sampled_from([(0.0, 0.1, 1.0), (0.0,), (1.0,), (0.1,), (0.2, 0.5)]))
    keep = rng.random(shape) < rng.choice(densities, (shape[0], 1, 1, 1))
    if draw(st.booleans()):
        keep &= rng.random((1, shape[1], 1, 1)) < 0.5
    block = draw(st.integers(1, groups * shape[1]))
    return Convolution(window, draw(sizes(window)), groups, keep, block, draw(st.booleans()), rng)


def any_image(channels: int, size: Pair, lanes: int, gap: int | None) -> ImageLayout:
    """An image with more floats between its rows and its channels, or as torch has it, with none."""
    if gap is None:
        return ImageLayout(channels, *size, size[1], size[0] * size[1])
    own = image_layout(channels, *size, lanes)
    pitch = own.pitch + gap
    return ImageLayout(channels, *size, pitch, size[0] * pitch + own.plane % 16 + gap)


gaps = st.one_of(st.none(), st.integers(0, 5))


def to_read(numbers: np.ndarray, own: ImageLayout, expansion: Expansion) -> np.ndarray:
    """An image with nothing around it but what its expansion may read beside it, NaN.

    With a step of 1 that is nothing at all, not even what lies behind its last row.
    """
    flat = laid_out(numbers, own, expansion.slack)
    if expansion.step > 1:
        return flat
    assert expansion.slack == 0
    return flat[: own.size - own.plane + (own.height - 1) * own.pitch + own.width]


def laid_out(numbers: np.ndarray, own: ImageLayout, slack: int = 0) -> np.ndarray:
    """Numbers (channels, height, width) as the image has them; NaN between, and `slack` of them on either side."""
    flat = np.full(own.size + 2 * slack, NAN)
    seen_in(flat[slack:], own)[...] = numbers
    return flat


def seen_in(flat: np.ndarray, own: ImageLayout) -> np.ndarray:
    """The channels, rows and columns of an image."""
    strides = 4 * own.plane, 4 * own.pitch, 4
    return np.lib.stride_tricks.as_strided(flat, (own.channels, own.height, own.width), strides)


def result_image(channels: int, size: Pair, lanes: int, whole_rows: bool) -> ImageLayout:
    """An image of outputs, whose rows may have to be whole vectors."""
    if not whole_rows:
        return image_layout(channels, *size, lanes)
    pitch = -(-size[1] // lanes) * lanes
    return ImageLayout(channels, *size, pitch, size[0] * pitch + lanes)


def inner(flat: np.ndarray, panel: Panel, more: Pair = (0, 0)) -> np.ndarray:
    """Channels, rows, columns and examples of a panel without its border, but with so many rows and columns of it."""
    planes = flat.reshape(panel.channels, panel.positions, panel.examples)[:, : panel.rows * panel.columns]
    above, left = panel.border - more[0], panel.border - more[1]
    every = planes.reshape(panel.channels, panel.rows, panel.columns, panel.examples)
    return every[:, above : panel.rows - above, left : panel.columns - left]
