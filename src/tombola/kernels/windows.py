"""The geometry of convolutions and pools, and how activations lie in memory. Nothing is packed or computed here."""

from __future__ import annotations

from dataclasses import dataclass

Pair = tuple[int, int]
"""Of height and width."""


@dataclass(frozen=True)
class Window:
    """What an output sees of its inputs: a window of `kernel` positions, `dilation` apart, on a border of zeros.

    A pool of `pool` × `pool` windows that do not overlap may follow.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    pool: int = 1

    def outputs(self, height: int, width: int) -> Pair:
        """The height and width of the outputs, after the pool; 0 or less where the window does not fit."""
        before = (
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, padding, dilation in zip(
                (height, width), self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )
        rows, columns = before
        return rows // self.pool, columns // self.pool

    @property
    def step(self) -> Pair:
        """How far the windows of neighbouring outputs, after the pool, lie apart."""
        return self.stride[0] * self.pool, self.stride[1] * self.pool

    @property
    def reach(self) -> Pair:
        """How many inputs the windows of one output, after the pool, span."""
        vertical, horizontal = (
            dilation * (kernel - 1) + (self.pool - 1) * stride + 1
            for kernel, stride, dilation in zip(self.kernel, self.stride, self.dilation, strict=True)
        )
        return vertical, horizontal

    @property
    def phases(self) -> list[Pair]:
        """Where the windows that are pooled to one output begin, beside the first."""
        return [
            (row * self.stride[0], column * self.stride[1]) for row in range(self.pool) for column in range(self.pool)
        ]


@dataclass(frozen=True)
class ImageLayout:
    """The activations of one example: (channels, height, width), rows `pitch` floats apart, channels `plane` apart.

    What lies between rows and between channels is anything.
    """

    channels: int
    height: int
    width: int
    pitch: int
    plane: int

    @property
    def size(self) -> int:
        """In floats."""
        return self.channels * self.plane

    @property
    def compact(self) -> bool:
        """Nothing lies between rows or channels."""
        return self.pitch == self.width and self.plane == self.height * self.width


def image_layout(channels: int, height: int, width: int, lanes: int) -> ImageLayout:
    """An image whose rows are whole pieces of 4 floats and whose channels are whole vectors.

    Channels whole kilobytes apart would share few places of a cache and drive each other out, so they are not.
    """
    pitch = -(-width // ROUND) * ROUND
    plane = -(-height * pitch // lanes) * lanes
    return ImageLayout(channels, height, width, pitch, plane + lanes if plane % KILOBYTE == 0 else plane)


def features(count: int) -> ImageLayout:
    """Numbers without height and width, one after the other."""
    return ImageLayout(count, 1, 1, 1, 1)


ROUND = 4
"""Floats to which rows are filled up: what is copied together at least."""
KILOBYTE = 256
"""In floats."""


@dataclass(frozen=True)
class Panel:
    """The activations of `examples` examples, a multiple of the lanes: (channels, height, width, examples), examples
    innermost, with `border` rows and columns around each channel and `spare` positions behind it.

    Channels that are a power of two apart would share few places of a cache and drive each other out; a spare position
    keeps them from it.
    """

    channels: int
    height: int
    width: int
    border: int
    examples: int
    spare: int = 0

    @property
    def rows(self) -> int:
        return self.height + 2 * self.border

    @property
    def columns(self) -> int:
        return self.width + 2 * self.border

    @property
    def positions(self) -> int:
        """Of a channel, border and spare ones too."""
        return self.rows * self.columns + self.spare

    @property
    def plane(self) -> int:
        """Floats of a channel."""
        return self.positions * self.examples

    @property
    def size(self) -> int:
        """In floats."""
        return self.channels * self.plane

    def at(self, row: int, column: int) -> int:
        """Where in a channel a position's examples lie; -1 is a row or column of the border."""
        return ((row + self.border) * self.columns + column + self.border) * self.examples
