"""Convolutions that cannot be packed are refused by name: kernels check nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from small_windows import result_image

from tombola.errors import KernelError
from tombola.kernels.convolutions import Packed, pack_all, pack_panel, pack_rows
from tombola.kernels.packing import MOST_COLUMNS
from tombola.kernels.windows import ImageLayout, Panel, Window, image_layout

Pack = Callable[..., Packed]
PACKINGS = [pack_panel, pack_rows, pack_all]
SAME = Window((3, 3), padding=(1, 1))


def refused(keep: np.ndarray, pack: Pack, match: str, groups: int = 1, block: int = 1, window: Window = SAME) -> None:
    """A mask for six channels of 16 × 16."""
    own, result = image_layout(6, 16, 16, 8), image_layout(len(keep) if keep.ndim else 1, *window.outputs(16, 16), 8)
    layouts: tuple[Panel | ImageLayout, Panel | ImageLayout] = own, result
    if pack is pack_panel:
        layouts = Panel(6, 16, 16, 1, 8), Panel(result.channels, result.height, result.width, 0, 8)
    with pytest.raises(KernelError, match=match):
        pack(keep, groups, window, *layouts, 8, block)


@pytest.mark.parametrize("pack", PACKINGS)
@pytest.mark.parametrize(
    "keep",
    [
        np.ones((4, 6, 3), bool),
        np.ones((4, 54), bool),
        np.ones((4, 6, 3, 3, 1), bool),
        np.ones((4, 6, 3, 3), np.float32),
        np.ones((4, 6, 3, 3), np.uint8),
        np.ones((0, 6, 3, 3), bool),
    ],
    ids=lambda keep: f"{keep.dtype}{keep.shape}",
)
def test_what_is_no_mask_is_refused_by_name(pack: Pack, keep: np.ndarray) -> None:
    refused(keep, pack, f"four axes of booleans, not {keep.dtype}")


@pytest.mark.parametrize("pack", PACKINGS)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((4, 5, 3, 3), 1), ((4, 6, 3, 3), 2), ((4, 2, 3, 3), 3), ((4, 3, 3, 3), 1), ((4, 6, 3, 2), 1), ((4, 6, 5, 5), 1)],
)
def test_a_mask_that_does_not_fit_is_refused(pack: Pack, shape: tuple[int, ...], groups: int) -> None:
    """Other channels, groups that do not share them, a window of another size."""
    refused(np.ones(shape, bool), pack, "does not fit", groups)


@pytest.mark.parametrize("pack", PACKINGS)
@pytest.mark.parametrize("groups", [0, -1])
def test_groups_that_are_none_are_refused(pack: Pack, groups: int) -> None:
    refused(np.ones((4, 6, 3, 3), bool), pack, "does not fit", groups)


@pytest.mark.parametrize("pack", PACKINGS)
@pytest.mark.parametrize("block", [0, -1, MOST_COLUMNS])
def test_a_block_that_is_none_is_refused(pack: Pack, block: int) -> None:
    refused(np.ones((4, 6, 3, 3), bool), pack, f"more than {MOST_COLUMNS}", block=block)


def test_a_border_smaller_than_the_padding_is_refused() -> None:
    keep = np.ones((1, 1, 3, 3), dtype=bool)
    for padding in ((1, 0), (0, 1), (2, 1)):
        own, window = Panel(1, 8, 8, max(padding) - 1, 8), Window((3, 3), padding=padding)
        with pytest.raises(KernelError, match=f"border of {own.border} is less"):
            pack_panel(keep, 1, window, own, Panel(1, *window.outputs(8, 8), 0, 8), 8, 1)


def test_rows_that_are_no_whole_vectors_are_refused() -> None:
    own = image_layout(1, 8, 12, 8)
    with pytest.raises(KernelError, match="rows of 12 floats are not whole vectors of 8"):
        pack_rows(np.ones((1, 1, 3, 3), dtype=bool), 1, SAME, own, own, 8, 1)


@pytest.mark.parametrize("pack", PACKINGS)
@pytest.mark.parametrize("shape", [(4, 17, 16), (4, 16, 17), (3, 16, 16), (4, 0, 16)])
def test_outputs_that_a_window_does_not_make_are_refused(pack: Pack, shape: tuple[int, int, int]) -> None:
    """More than there are, which would be read beyond the inputs, and less room than for all channels."""
    own, result = image_layout(6, 16, 16, 8), result_image(shape[0], shape[1:], 8, whole_rows=True)
    layouts: tuple[Panel | ImageLayout, Panel | ImageLayout] = own, result
    if pack is pack_panel:
        layouts = Panel(6, 16, 16, 1, 8), Panel(*shape, 0, 8)
    with pytest.raises(KernelError, match="are not those of 4 channels, 16 × 16"):
        pack(np.ones((4, 6, 3, 3), bool), 1, SAME, *layouts, 8, 1)


@pytest.mark.parametrize(("inputs", "outputs"), [(8, 16), (12, 12)])
def test_panels_that_are_no_whole_vectors_are_refused(inputs: int, outputs: int) -> None:
    own, result = Panel(1, 8, 8, 1, inputs), Panel(1, 8, 8, 0, outputs)
    with pytest.raises(KernelError, match=f"{inputs} and {outputs} examples are not whole vectors of 8"):
        pack_panel(np.ones((1, 1, 3, 3), dtype=bool), 1, SAME, own, result, 8, 1)


@pytest.mark.parametrize(("pitch", "plane"), [(8, 68), (9, 72)])
def test_planes_that_are_no_whole_vectors_are_refused(pitch: int, plane: int) -> None:
    own, result = image_layout(1, 8, 8, 8), ImageLayout(1, 8, 8, pitch, plane)
    with pytest.raises(KernelError, match=f"a plane of {plane} floats, {pitch} a row"):
        pack_all(np.ones((1, 1, 3, 3), dtype=bool), 1, SAME, own, result, 8, 1)


@pytest.mark.parametrize("pack", PACKINGS)
def test_a_larger_pool_is_refused(pack: Pack) -> None:
    refused(np.ones((4, 6, 3, 3), bool), pack, "9 positions are more than", window=replace(SAME, pool=3))
