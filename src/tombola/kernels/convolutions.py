"""Convolutions as sparse matrices × vectors that lie anywhere (`tiles`), in three packings.

* *panel*: examples innermost, on a border of zeros; nothing is copied.
* *rows*: one example; rows of the image are copied shifted, and a window's rows are found by offsets.
* *all*: one example; every position of the window has a copy of its own, as im2col has it, for small images.

Everything is checked here, once, so that kernels need not check.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tombola.errors import KernelError
from tombola.kernels.expansions import Expansion, all_windows, rows_seen, shifted_rows
from tombola.kernels.packing import MOST_COLUMNS, Block, Pattern
from tombola.kernels.products import MOST_SUMS, TILES
from tombola.kernels.windows import ROUND, ImageLayout, Panel, Window

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Tiles:
    """Where a kernel's vectors begin and where they go: (tiles, vectors of a tile) of 32 bits, in floats.

    Where tiles are `pooled`, each has one goal. A vector fills `registers` registers: 1, 2, 4 or 8.
    """

    vectors: int
    origins: NDArray[np.int32]
    goals: NDArray[np.int32]
    registers: int = 1

    @property
    def count(self) -> int:
        return len(self.origins)

    @property
    def pooled(self) -> bool:
        return self.origins.shape != self.goals.shape


@dataclass(frozen=True)
class Packed:
    """A convolution in a packing: `channels` of its inputs make each block of the pattern, whose columns count
    `column_stride` floats. `expansion` is how one example's image is copied before, for the packings that need it."""

    pattern: Pattern
    channels: int
    column_stride: int
    tiles: Tiles
    expansion: Expansion | None = None


def pack_panel(
    keep: NDArray[np.bool_], groups: int, window: Window, own: Panel, result: Panel, lanes: int, channels: int
) -> Packed:
    """A mask (outputs, inputs of a group, height, width) for panels, `channels` input channels at a time."""
    if own.border < max(window.padding):
        raise KernelError(f"a border of {own.border} is less than the padding {window.padding}")
    vertical, horizontal = _taps(window)
    columns = vertical[:, None] * own.columns + horizontal
    pattern = _pattern(keep, groups, own.channels, columns, own.positions, channels)
    _check_outputs(pattern, window, own, result)
    if own.examples != result.examples or own.examples % lanes:
        raise KernelError(f"panels of {own.examples} and {result.examples} examples are not whole vectors of {lanes}")
    chunks = np.arange(0, own.examples, lanes)
    down, across = np.divmod(np.arange(result.height * result.width), result.width)
    begin = [
        own.at(0, 0)
        + ((down * window.step[0] - window.padding[0] + row) * own.columns) * own.examples
        + (across * window.step[1] - window.padding[1] + column) * own.examples
        for row, column in window.phases
    ]
    goals = result.at(0, 0) + (down * result.columns + across) * result.examples
    return Packed(pattern, channels, own.examples, _tiles(np.stack(begin), goals, chunks, lanes))


def pack_rows(
    keep: NDArray[np.bool_],
    groups: int,
    window: Window,
    own: ImageLayout,
    result: ImageLayout,
    lanes: int,
    channels: int,
) -> Packed:
    """A mask for one example whose rows are copied shifted; rows of `result` are whole vectors."""
    if result.pitch % lanes:
        raise KernelError(f"rows of {result.pitch} floats are not whole vectors of {lanes}")
    rows, vectors = rows_seen(window, result), result.pitch // lanes
    vertical, horizontal = _taps(window)
    columns = vertical[:, None] * vectors + horizontal * (rows * vectors)
    pattern = _pattern(keep, groups, own.channels, columns, columns_of_rows(window, result, lanes), channels)
    _check_outputs(pattern, window, own, result)
    down = np.arange(result.height)
    begin = [
        column * rows * result.pitch + (down * window.step[0] + row) * result.pitch for row, column in window.phases
    ]
    chunks = np.arange(0, result.pitch, lanes)
    tiles = _tiles(np.stack(begin), down * result.pitch, chunks, lanes)
    return Packed(pattern, channels, lanes, tiles, shifted_rows(own, window, result))


def pack_all(
    keep: NDArray[np.bool_],
    groups: int,
    window: Window,
    own: ImageLayout,
    result: ImageLayout,
    lanes: int,
    channels: int,
) -> Packed:
    """A mask for one example of which every position of the window has a copy."""
    vertical, horizontal = _taps(window)
    reach = window.reach
    columns = vertical[:, None] * reach[1] + horizontal
    pattern = _pattern(keep, groups, own.channels, columns, columns_of_all(window), channels)
    _check_outputs(pattern, window, own, result)
    if result.plane % lanes or result.pitch % ROUND:
        raise KernelError(f"a plane of {result.plane} floats, {result.pitch} a row, is not whole vectors of {lanes}")
    begin = [np.array([(row * reach[1] + column) * result.plane]) for row, column in window.phases]
    tiles = _tiles(np.stack(begin), np.zeros(1, dtype=np.int64), np.arange(0, result.plane, lanes), lanes)
    return Packed(pattern, channels, result.plane, tiles, all_windows(own, window, result))


def _check_outputs(pattern: Pattern, window: Window, own: Panel | ImageLayout, result: Panel | ImageLayout) -> None:
    """There is room for all outputs, and the inputs that each of them sees are there."""
    most = window.outputs(own.height, own.width)
    if result.channels < pattern.shape[0] or not all(
        0 < size <= there for size, there in zip((result.height, result.width), most, strict=True)
    ):
        raise KernelError(
            f"outputs {(result.channels, result.height, result.width)} are not those of {pattern.shape[0]} channels, "
            f"{own.height} × {own.width}, through {window}"
        )


def _taps(window: Window) -> tuple[Numbers, Numbers]:
    """The rows and columns of a window's positions."""
    return np.arange(window.kernel[0]) * window.dilation[0], np.arange(window.kernel[1]) * window.dilation[1]


def _pattern(
    keep: NDArray[np.bool_], groups: int, inputs: int, columns: Numbers, per_channel: int, channels: int
) -> Pattern:
    """The pattern of a mask whose weight (o, i, row, column) reads column i · per_channel + columns[row, column]."""
    if keep.ndim != 4 or keep.dtype != np.bool_ or not keep.size:
        raise KernelError(f"a convolution's mask has four axes of booleans, not {keep.dtype} {keep.shape}")
    if groups < 1 or len(keep) % groups or keep.shape[1] * groups != inputs or keep.shape[2:] != columns.shape:
        raise KernelError(f"a mask {keep.shape} of {groups} groups does not fit {inputs} channels, {columns.shape}")
    if channels < 1 or channels * per_channel > MOST_COLUMNS:
        raise KernelError(f"{channels} channels of {per_channel} columns are more than {MOST_COLUMNS}")
    outputs, own, row, column = np.nonzero(keep)
    places = np.flatnonzero(keep)
    channel = own + outputs // (len(keep) // groups) * keep.shape[1]
    reads = channel * per_channel + columns[row, column]
    blocks = []
    for first in range(0, inputs, channels):
        inside = (channel >= first) & (channel < first + channels)
        blocks.append(
            _block(
                outputs[inside],
                reads[inside],
                places[inside],
                len(keep),
                first,
                min(channels, inputs - first),
                per_channel,
            )
        )
    return Pattern((len(keep), inputs * per_channel), tuple(blocks))


def _block(
    rows: Numbers, reads: Numbers, places: Numbers, count: int, first: int, channels: int, per_channel: int
) -> Block:
    """The block of `channels` input channels from `first` on."""
    if len(rows) > np.iinfo(np.int32).max:
        raise KernelError(f"{len(rows)} nonzeros are more than a kernel counts")
    starts = np.zeros(count + 1, dtype=np.int32)
    np.cumsum(np.bincount(rows, minlength=count), out=starts[1:])
    begin = first * per_channel
    return Block(begin, channels * per_channel, starts, (reads - begin).astype(np.uint16), places)


def columns_of_rows(window: Window, result: ImageLayout, lanes: int) -> int:
    """Of one channel in `pack_rows`."""
    return window.reach[1] * rows_seen(window, result) * result.pitch // lanes


def columns_of_all(window: Window) -> int:
    """Of one channel in `pack_all`."""
    return window.reach[0] * window.reach[1]


def most_channels(per_channel: int) -> int:
    """How many channels of so many columns a block may have; 0 where one is too large."""
    return MOST_COLUMNS // per_channel


def _tiles(begin: Numbers, goals: Numbers, chunks: Numbers, lanes: int) -> Tiles:
    """Tiles for the positions whose vectors begin at `begin` (phases, positions) and go to `goals`, at all `chunks`."""
    phases = len(begin)
    if phases > TILES:
        raise KernelError(f"{phases} positions are more than a kernel pools, which is {TILES}")
    origins = (begin[:, :, None] + chunks).reshape(phases, -1)
    ends = (goals[:, None] + chunks).reshape(-1)
    registers = 1
    while 2 * registers * phases <= MOST_SUMS and _are_pairs(origins, ends, registers * lanes):
        origins, ends, registers = origins[:, ::2], ends[::2], 2 * registers
    if phases > 1:
        return Tiles(phases, table(origins.T), table(ends[:, None]), registers)
    vectors = _vectors_of(len(ends), min(TILES, MOST_SUMS // registers))
    filled = np.minimum(np.arange(-(-len(ends) // vectors) * vectors), len(ends) - 1)  # the last tile's rest: its last
    begins, places_to = (table(places[filled].reshape(-1, vectors)) for places in (origins[0], ends))
    return Tiles(vectors, begins, places_to, registers)


def _are_pairs(origins: Numbers, ends: Numbers, floats: int) -> bool:
    """Vectors of so many floats follow one another two by two: a pair needs one place, and shares a nonzero's cost."""
    places = np.vstack([origins, ends])
    return places.shape[1] % 2 == 0 and bool((places[:, 1::2] == places[:, ::2] + floats).all())


def _vectors_of(count: int, most: int) -> int:
    """How many vectors a tile best has for so many in all: few tiles, and few that are computed in vain."""
    return min(range(1, most + 1), key=lambda vectors: (-(-count // vectors) * (vectors + 1), -vectors))


def table(numbers: NDArray[np.integer]) -> NDArray[np.int32]:
    """Places as kernels read them. Raises KernelError for those that 32 bits do not hold."""
    if numbers.size and max(int(numbers.max()), -int(numbers.min())) > np.iinfo(np.int32).max:
        raise KernelError("the activations of a layer are more than a kernel counts")
    return np.ascontiguousarray(numbers, dtype=np.int32)
