"""The geometry of windows is that of torch, and every position of a layout is where it says."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_windows import pairs, sizes, windows
from torch.nn import functional

from tombola.kernels.windows import KILOBYTE, ROUND, Pair, Panel, Window, features, image_layout


@settings(max_examples=200)
@given(window=windows, size=pairs(1, 20))
def test_outputs_are_as_many_as_those_of_torch(window: Window, size: Pair) -> None:
    """And none where torch refuses."""
    try:
        found = functional.conv2d(
            torch.zeros(1, 1, *size), torch.zeros(1, 1, *window.kernel), None, window.stride, window.padding,
            window.dilation,
        )  # fmt: skip
        expected = tuple(functional.max_pool2d(found, window.pool).shape[2:])
    except RuntimeError:
        assert min(window.outputs(*size)) <= 0
    else:
        assert window.outputs(*size) == expected


@settings(max_examples=100)
@given(window=windows, data=st.data())
def test_outputs_see_what_those_of_torch_see(window: Window, data: st.DataObject) -> None:
    """`reach` is what a gradient of one output comes to, `step` how far the next one's is from it."""
    size = data.draw(sizes(window, 3, 3))
    rows, columns = window.outputs(*size)
    bordered = [extent + 2 * padding for extent, padding in zip(size, window.padding, strict=True)]

    def seen(weights: torch.Tensor, row: int, column: int) -> tuple[np.ndarray, ...]:
        x = torch.zeros(1, 1, *bordered, requires_grad=True)
        y = functional.conv2d(x, weights, None, window.stride, 0, window.dilation)
        functional.avg_pool2d(y, window.pool)[0, 0, row, column].backward()
        assert x.grad is not None
        return x.grad[0, 0].numpy().nonzero()

    whole, corner = torch.ones(1, 1, *window.kernel), torch.zeros(1, 1, *window.kernel)
    corner[0, 0, 0, 0] = 1
    down, across = seen(whole, 0, 0)
    assert (down.max() + 1, across.max() + 1) == window.reach
    assert (down.min(), across.min()) == (0, 0)
    down, across = seen(whole, rows - 1, columns - 1)
    assert (down.min(), across.min()) == ((rows - 1) * window.step[0], (columns - 1) * window.step[1])
    assert set(zip(*seen(corner, 0, 0), strict=True)) == set(window.phases)
    assert window.phases[0] == (0, 0)


def test_a_reach_of_pooled_dilated_windows() -> None:
    """By hand: positions 0, 2, 4 of the first window, 3, 5, 7 of the second."""
    window = Window((3, 3), stride=(3, 3), dilation=(2, 2), pool=2)
    assert (window.reach, window.step) == ((8, 8), (6, 6))
    assert window.phases == [(0, 0), (0, 3), (3, 0), (3, 3)]


@given(channels=st.integers(1, 5), size=pairs(1, 50), lanes=st.sampled_from([4, 8, 16]))
def test_images_are_whole_pieces(channels: int, size: Pair, lanes: int) -> None:
    """The least of them, but that channels are not whole kilobytes apart."""
    own = image_layout(channels, *size, lanes)
    assert own.pitch % ROUND == 0
    assert size[1] <= own.pitch < size[1] + ROUND
    least = -(-size[0] * own.pitch // lanes) * lanes
    assert own.plane == (least if least % KILOBYTE else least + lanes)
    assert own.size == channels * own.plane
    assert own.compact == (own.plane == size[0] * size[1])


def test_features_are_a_compact_image() -> None:
    own = features(7)
    assert (own.channels, own.height, own.width, own.size, own.compact) == (7, 1, 1, 7, True)


@given(
    size=pairs(1, 6),
    border=st.integers(0, 3),
    vectors=st.integers(1, 3),
    spare=st.integers(0, 2),
    place=pairs(-3, 8),
)
def test_positions_of_panels(size: Pair, border: int, vectors: int, spare: int, place: Pair) -> None:
    """Channels follow one another, each with its spare positions at its end."""
    own = Panel(2, *size, border, 8 * vectors, spare)
    assume(all(-border <= at < extent + border for at, extent in zip(place, size, strict=True)))
    every = np.arange(own.size).reshape(2, -1, own.examples)
    assert every.shape[1] == own.positions == own.rows * own.columns + spare
    rows = every[0, : own.rows * own.columns].reshape(size[0] + 2 * border, size[1] + 2 * border, own.examples)
    assert rows[place[0] + border, place[1] + border, 0] == own.at(*place)
    assert every[1, 0, 0] == own.plane
