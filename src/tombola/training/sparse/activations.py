"""How the activations of a batch lie between convolutions, and in which order their positions are gone through.

They lie as (chunks, channels, rows, columns, lanes). A chunk is as many examples as a vector has lanes; they are
innermost, so that whatever the geometry one nonzero is one broadcast and a few multiply-adds. Each chunk is a panel of
its own rather than a part of a wide one: what neighbouring positions share stays near the core, channels are closer
together, and all chunks have the same tables. The last convolution's results lie as the dense layers behind it want
them: (channels, rows, columns, width).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tombola.errors import KernelError
from tombola.kernels.choices import POOL, TAKEN
from tombola.kernels.program import Where
from tombola.kernels.windows import Pair, Panel
from tombola.training.huge_pages import prefer_large_pages

Numbers = NDArray[np.int64]
Positions = tuple[Numbers, Numbers]
"""Rows and columns."""
NEAR_FLOATS = 100_000
"""What a part of the positions may take of inputs and outputs, so that it is still near when it is needed again."""
LANES = 16
"""Floats of a vector, at most."""
LEAST_TILES = 8
"""Tiles of a part below which going through all nonzeros once more costs more than nearness brings."""


def panel_of(channels: int, height: int, width: int, border: int, lanes: int) -> Panel:
    """The panel of one chunk. Its channels are an odd number of vectors apart, and so share no places of a cache."""
    panel = Panel(channels, height, width, border, lanes)
    return replace(panel, spare=1 - panel.positions % 2)


@dataclass(frozen=True)
class ChunkLayout:
    """One chunk's panel, which begins somewhere in a memory."""

    panel: Panel
    memory: Tensor
    begin: int

    def at(self, offset: int = 0) -> Where:
        return Where(self.memory.numpy(), self.begin + offset)

    def vectors(self, positions: Positions, moved: Pair = (0, 0)) -> Numbers:
        """Where the vectors of positions, moved by some rows and columns, begin in a channel: floats from its own."""
        panel = self.panel
        rows, columns = positions[0] + moved[0], positions[1] + moved[1]
        return panel.at(0, 0) + (rows * panel.columns + columns) * panel.examples


def layouts_of(panel: Panel, memory: Tensor) -> list[ChunkLayout]:
    """One panel after the other, in memory (chunks, channels, positions, lanes)."""
    return [ChunkLayout(panel, memory, chunk * panel.size) for chunk in range(len(memory))]


def layouts_of_features(panel: Panel, chunks: int, memory: Tensor) -> list[ChunkLayout]:
    """Side by side without borders, in memory (features, width)."""
    lanes, width = panel.examples, memory.shape[1]
    wide = Panel(panel.channels, panel.height, panel.width, 0, width)
    return [ChunkLayout(wide, memory, chunk * lanes) for chunk in range(chunks)]


def empty_chunks(panel: Panel, chunks: int) -> Tensor:
    """(chunks, channels, positions, lanes) of zeros. Borders remain so, because nobody writes them."""
    memory = torch.zeros(chunks, panel.channels, panel.positions, panel.examples)
    prefer_large_pages(memory)
    return memory


def all_positions(height: int, width: int) -> Positions:
    """In strips of two rows, column by column: four that follow one another are mostly a square."""
    down, across = np.divmod(np.arange(height * width), width)
    order = np.lexsort((down, across, down // POOL))
    return down[order], across[order]


def pooled_positions(height: int, width: int) -> tuple[Positions, Positions]:
    """Those of a pool's results, and for each the four (pools, 4) that it saw, row by row."""
    down, across = np.divmod(np.arange(height * width), width)
    row, column = np.divmod(np.arange(TAKEN), POOL)
    return (down, across), (POOL * down[:, None] + row, POOL * across[:, None] + column)


@dataclass(frozen=True)
class Tiles:
    """Where the vectors of tiles lie in what a kernel reads and in what it writes, as `kernels/tiles.py` has them.

    (tiles, vectors of a tile) both; with a pool between, one side has one vector for each tile.
    """

    origins: NDArray[np.int32]
    goals: NDArray[np.int32]

    @property
    def count(self) -> int:
        return len(self.origins)

    def parts(self, channels: int) -> Iterator[Tiles]:
        """As many at a time as are near, where `channels` are read and written in all."""
        vectors = self.origins.shape[1]
        tiles = max(LEAST_TILES, NEAR_FLOATS // (channels * vectors * LANES))
        tiles = -(-self.count // -(-self.count // tiles))  # parts of equal size
        for first in range(0, self.count, tiles):
            own = slice(first, first + tiles)
            yield Tiles(self.origins[own], self.goals[own])


def plain_tiles(origins: Numbers, goals: Numbers, vectors: int) -> list[Tiles]:
    """Vectors in order, so many to a tile; those left over one to a tile."""
    whole = len(origins) // vectors * vectors
    made = [
        Tiles(_table(origins[:whole].reshape(-1, vectors)), _table(goals[:whole].reshape(-1, vectors))),
        Tiles(_table(origins[whole:, None]), _table(goals[whole:, None])),
    ]
    return [tiles for tiles in made if tiles.count]


def pooling_tiles(origins: Numbers, goals: Numbers) -> Tiles:
    """Vectors (pools, 4), and where the one that is taken goes (pools)."""
    return Tiles(_table(origins), _table(goals[:, None]))


def _table(numbers: Numbers) -> NDArray[np.int32]:
    if numbers.size and int(numbers.max()) > np.iinfo(np.int32).max:
        raise KernelError("an example's activations of one layer are more than a kernel counts")
    return np.ascontiguousarray(numbers, dtype=np.int32)
