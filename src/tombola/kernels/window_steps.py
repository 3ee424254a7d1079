"""Steps of programs for convolutional networks: convolutions in each packing, pools, copies between layouts.

`ImageLayout` and `Panel` (`windows`) say how activations lie; places are where they begin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tombola.kernels.convolutions import Packed, Tiles, table
from tombola.kernels.copies import CLEAR, CLEAR_BORDER, COPY_ROWS, combine
from tombola.kernels.expansions import Expansion, all_windows, expand
from tombola.kernels.packing import Floats
from tombola.kernels.pools import PLANE_MEANS, PoolKind, pool
from tombola.kernels.products import Epilogue
from tombola.kernels.program import Step, Where
from tombola.kernels.steps import NOWHERE
from tombola.kernels.tiles import tile_product
from tombola.kernels.windows import ImageLayout, Panel, Window

LOWEST = -math.inf

Layout = ImageLayout | Panel


def after(where: Where, floats: int) -> Where:
    """So many floats further on."""
    return Where(where.place, where.offset + floats)


NEAR = 1 << 16
"""Floats of sums that wait for the next block of channels: a quarter of a second-level cache."""
LEAST_TILES = 8
"""Tiles of a part below which going through all nonzeros once more costs more than nearness brings."""


@dataclass(frozen=True)
class Ends:
    """How a step's input and result lie, and where they begin."""

    own: Layout
    result: Layout
    x: Where
    y: Where


def convolution(
    packed: Packed,
    values: Sequence[Floats],
    bias: Floats,
    ends: Ends,
    epilogue: Epilogue,
    scratch: Where,
    lanes: int,
    gate: Where = NOWHERE,
) -> list[Step]:
    """One convolution, a block of input channels after the other. `values` are those of the pattern's blocks.

    Panels go part by part of their positions, so that sums are still near when the next block adds to them. `scratch`
    has room for `convolution_scratch` floats; `gate` lies like the result. A pooled one has no gate: its sums wait
    in the scratch until the last block.
    """
    blocks, rows = packed.pattern.blocks, packed.pattern.shape[0]
    sums = after(scratch, _copied(packed))
    steps = []
    for tiles in _parts(packed, lanes):
        vectors, width = tiles.origins.size, lanes * tiles.registers
        waiting = (sums, vectors * width, tiles.count, tiles.origins, table(np.arange(vectors) * width), NOWHERE)
        done = (ends.y, ends.result.plane, tiles.count, tiles.origins, tiles.goals, sums if tiles.pooled else gate)
        for number, (block, inside) in enumerate(zip(blocks, values, strict=True)):
            first, last = number == 0, number == len(blocks) - 1
            channel = number * packed.channels
            inputs = after(ends.x, channel * ends.own.plane)
            if packed.expansion is not None:
                count = min(packed.channels, ends.own.channels - channel)
                steps.append(expanded(packed.expansion, count, ends.own.plane, inputs, scratch))
                inputs = scratch
            matrix = (rows, block.starts, block.columns, inside, bias, inputs, packed.column_stride)
            wait = tiles.pooled and not last
            end = epilogue if last else Epilogue.NONE
            kernel = tile_product(tiles.vectors, first, end, tiles.pooled and not wait, tiles.registers)
            steps.append(Step(kernel, (*matrix, *(waiting if wait else done))))
    return steps


def convolution_scratch(packed: Packed, lanes: int) -> int:
    """Floats of scratch that `convolution` needs."""
    pooled = packed.tiles.pooled and len(packed.pattern.blocks) > 1
    vectors = max(tiles.origins.size for tiles in _parts(packed, lanes)) if pooled else 0
    return _copied(packed) + packed.pattern.shape[0] * vectors * packed.tiles.registers * lanes


def _parts(packed: Packed, lanes: int) -> list[Tiles]:
    """The tiles that go through all blocks together. Copies of a block's windows are made once, for all of them."""
    tiles = packed.tiles
    if packed.expansion is not None or len(packed.pattern.blocks) == 1:
        return [tiles]
    floats = packed.pattern.shape[0] * tiles.vectors * tiles.registers * lanes
    most = max(LEAST_TILES, NEAR // floats)
    return [
        replace(tiles, origins=tiles.origins[first : first + most], goals=tiles.goals[first : first + most])
        for first in range(0, tiles.count, most)
    ]


def _copied(packed: Packed) -> int:
    return packed.expansion.size * packed.channels if packed.expansion is not None else 0


def expanded(
    expansion: Expansion, channels: int, plane: int, x: Where, y: Where, fill: float = 0.0, size: int | None = None
) -> Step:
    """Copies the channels of an image for a window; channels of the copy lie `size` apart."""
    tables = (len(expansion.sources), expansion.sources, expansion.inside)
    kernel = expand(expansion.piece, expansion.step, None if expansion.whole else fill)
    return Step(kernel, (channels, x, plane, y, expansion.size if size is None else size, *tables))


def image_pool(
    kind: PoolKind,
    window: Window,
    own: ImageLayout,
    result: ImageLayout,
    x: Where,
    y: Where,
    scratch: Where,
    lanes: int,
) -> list[Step]:
    """A pool of one example. `scratch` has room for `pool_scratch` floats: copies of windows, as whole vectors."""
    expansion = all_windows(own, window, result)
    vectors = np.arange(0, result.plane, lanes)
    taps = np.arange(window.reach[0] * window.reach[1]) * result.plane
    origins = table(vectors[:, None] + taps)
    goals = table(vectors)
    copy = expanded(expansion, own.channels, own.plane, x, scratch, LOWEST if kind is PoolKind.MAX else 0.0)
    tables = (len(vectors), len(taps), origins, goals, _fractions(window, len(vectors)))
    return [copy, Step(pool(kind), (own.channels, scratch, expansion.size, y, result.plane, *tables))]


def pool_scratch(window: Window, result: ImageLayout) -> int:
    """Floats of scratch that `image_pool` needs."""
    return result.channels * window.reach[0] * window.reach[1] * result.plane


def panel_pool(kind: PoolKind, window: Window, own: Panel, result: Panel, x: Where, y: Where, lanes: int) -> list[Step]:
    """A pool of a panel. For a mean its border is at least the padding; a largest value stays inside."""
    down, across = np.divmod(np.arange(result.height * result.width), result.width)
    row, column = np.divmod(np.arange(window.kernel[0] * window.kernel[1]), window.kernel[1])
    rows = (down * window.stride[0] - window.padding[0])[:, None] + row
    columns = (across * window.stride[1] - window.padding[1])[:, None] + column
    if kind is PoolKind.MAX:  # what is outside gives way to what is inside, twice the same number does not matter
        rows, columns = rows.clip(0, own.height - 1), columns.clip(0, own.width - 1)
    chunks = np.arange(0, own.examples, lanes)
    origins = (own.at(0, 0) + (rows * own.columns + columns) * own.examples)[:, None, :] + chunks[:, None]
    goals = (result.at(0, 0) + (down * result.columns + across) * result.examples)[:, None] + chunks
    places = table(origins).reshape(-1), table(goals).reshape(-1)
    tables = (goals.size, origins.shape[2], *places, _fractions(window, goals.size))
    return [Step(pool(kind), (own.channels, x, own.plane, y, result.plane, *tables))]


def _fractions(window: Window, count: int) -> Floats:
    """For each of `count` outputs 1 / (how many inputs its window has), the border's too."""
    return np.full(count, 1 / (window.kernel[0] * window.kernel[1]), dtype=np.float32)


def copied_rows(
    channels: int, height: int, width: int, x: Where, x_plane: int, x_pitch: int, y: Where, y_plane: int, y_pitch: int
) -> Step:
    """An image in another layout."""
    return Step(COPY_ROWS, (channels, height, width, x, x_plane, x_pitch, y, y_plane, y_pitch))


def plane_means(own: ImageLayout, x: Where, y: Where) -> Step:
    """The mean of each channel, one after the other."""
    return Step(PLANE_MEANS, (own.channels, x, own.plane, own.height, own.width, own.pitch, y))


def cleared(count: int, y: Where) -> Step:
    """So many zeros."""
    return Step(CLEAR, (count, y))


def cleared_border(panel: Panel, y: Where) -> list[Step]:
    """Zeros around every channel, if there is a border."""
    if not panel.border:
        return []
    row, border = panel.columns * panel.examples, panel.border * panel.examples
    return [Step(CLEAR_BORDER, (panel.channels, y, panel.plane, panel.rows, row, panel.border, border))]


def combined(layout: Layout, x: Where, y: Where, scale: Floats, shift: Floats, relu: bool, other: Where | None) -> Step:
    """x · scale + shift, plus other, through a ReLU; all lie alike. Borders are no zeros any more."""
    kernel = combine(other is not None, relu)
    numbers = (layout.channels, layout.plane, x, y, layout.plane, scale, shift)
    return Step(kernel, (*numbers, NOWHERE if other is None else other))
