"""A network as sparse kernels run it: nodes in order, each computing one value from earlier ones.

How a graph is read from a model is `tracing`, how it runs on kernels `lowering`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tombola.compression.layers import Layer
from tombola.errors import KernelError
from tombola.kernels.pools import PoolKind
from tombola.kernels.windows import Window

Shape = tuple[int, ...]
"""Of one example: (channels, height, width), or (features,)."""


@dataclass(frozen=True, eq=False)
class Node:
    """Computes a value of `shape` from those numbered `inputs`: 0 is the graph's input, n + 1 what node n computes."""

    inputs: tuple[int, ...]
    shape: Shape


@dataclass(frozen=True, eq=False)
class Convolution(Node):
    """A convolution; a second input is added to its sums; then the layer's ReLU and the window's max pool, if any."""

    layer: Layer
    window: Window
    groups: int


@dataclass(frozen=True, eq=False)
class Dense(Node):
    """A Linear layer, and its ReLU."""

    layer: Layer


MOST_READS = 1 << 22
"""What a pool may read of one channel: it has a table of as many places."""


@dataclass(frozen=True, eq=False)
class Pool(Node):
    """The largest or the mean of each window; a mean counts the border of zeros."""

    kind: PoolKind
    window: Window


@dataclass(frozen=True, eq=False)
class Mean(Node):
    """The mean over each channel: (channels, 1, 1)."""


@dataclass(frozen=True, eq=False)
class Combine(Node):
    """x · scale + shift channel by channel, plus a second input if there is one, and max(·, 0) where `relu`."""

    scale: NDArray[np.float32]
    shift: NDArray[np.float32]
    relu: bool


@dataclass(frozen=True, eq=False)
class Shortcut(Node):
    """Every `step`-th row and column, and channels of zeros before the input's (and behind them, up to the shape)."""

    step: int
    before: int


@dataclass(frozen=True, eq=False)
class Flatten(Node):
    """The same numbers without height and width."""


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in the order in which they run; the last one's value is the output.

    `sites` are the modules of a model that it replaces, `types` those of all modules in these, by which a model is
    recognised. `shape` is that of one input.
    """

    sites: tuple[str, ...]
    types: tuple[str, ...]
    shape: Shape
    nodes: tuple[Node, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Those of convolutions and Linear layers."""
        return tuple(node.layer for node in self.nodes if isinstance(node, Convolution | Dense))

    @property
    def inputs(self) -> int:
        """Numbers of one example."""
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:
        return math.prod(self.nodes[-1].shape)

    def shapes(self) -> list[Shape]:
        """Of all values, the input's first."""
        return [self.shape, *(node.shape for node in self.nodes)]

    def last_uses(self) -> list[int]:
        """For each value the last node that reads it; one behind the last node for the output."""
        last = [0] * (len(self.nodes) + 1)
        for number, node in enumerate(self.nodes):
            for value in node.inputs:
                last[value] = number
        last[-1] = len(self.nodes)
        return last

    def rows_of(self, shape: Shape) -> tuple[int, Shape]:
        """How many examples an input of this shape has, and the shape of their outputs. KernelError where none fits."""
        if tuple(shape[1:]) != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise KernelError(f"{self.layers[0].name}: takes inputs (n, {wanted}), not {tuple(shape)}")
        return shape[0], (shape[0], *self.nodes[-1].shape)

    def as_rows(self, input: Tensor) -> Tensor:
        """The input as `GraphArrays.on_torch` takes it."""
        return input
