"""What every layer of the sparse engine can do: its part of the kept vector, and the operations of a step on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from tombola.kernels.packing import Pattern
from tombola.kernels.program import Step, Where
from tombola.kernels.target import host
from tombola.training.sparse.kept import KeptParameters
from tombola.training.sparse.operations import Operation

KILOBYTE = 256
"""In floats."""

Load = Callable[[int, int, Where, int], Step]
"""(first, count, panel, width): brings so many examples of the batch, from its `first` on, to a panel of that width."""


class Layer(ABC):
    """A layer's part of the kept vector, and the operations of a step on it. `relu` follows all but the last."""

    convolves = False
    """Whether it reads images, and does not only read all numbers of them."""

    def __init__(self, module: nn.Linear | nn.Conv2d, relu: bool) -> None:
        self.module = module
        self.relu = relu

    @property
    @abstractmethod
    def count(self) -> int:
        """How many numbers of the kept vector its weights take."""

    @property
    @abstractmethod
    def features(self) -> int:
        """Numbers of an example that it reads."""

    @property
    def size(self) -> int:
        """How many numbers of the kept vector it takes."""
        return self.count + (0 if self.module.bias is None else len(self.module.bias))

    def attach(self, kept: KeptParameters) -> None:
        """Takes its parts of the kept vector: weights, then biases."""
        self.weights, self.weight_gradients = kept.pair(kept.take(self.count))
        if self.module.bias is None:
            self.biases, self.bias_gradients = torch.zeros(2, len(self.module.weight))
        else:
            self.biases, self.bias_gradients = kept.pair(kept.take(len(self.module.bias)))

    @abstractmethod
    def entrance(self, count: int, load: Load) -> tuple[Tensor, list[Operation]]:
        """Where `count` examples of a batch come in, if this is the first layer, and the operations that bring them."""

    @abstractmethod
    def outputs(self, count: int) -> Tensor:
        """Memory of zeros for its outputs, or their gradient, for `count` examples."""

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor) -> list[Operation]:
        """y = W x + b, and max(·, 0) of it where a ReLU follows."""

    @abstractmethod
    def backward(self, delta: Tensor, x: Tensor) -> list[Operation]:
        """The gradients of weights and biases, from that of the outputs."""

    @abstractmethod
    def below(self, delta: Tensor, x: Tensor, delta_below: Tensor) -> list[Operation]:
        """The gradient of the inputs, 0 where the ReLU before them gave 0."""

    @torch.no_grad()
    def read(self) -> None:
        """Takes the weights of the module."""
        self.weights.copy_(self.module.weight.reshape(-1)[self._places()])
        if self.module.bias is not None:
            self.biases.copy_(self.module.bias)

    @torch.no_grad()
    def write_back(self) -> None:
        """Gives the weights to the module; its removed ones are 0."""
        weight = torch.zeros(self.module.weight.numel())
        weight[self._places()] = self.weights
        self.module.weight.copy_(weight.view_as(self.module.weight))
        if self.module.bias is not None:
            self.module.bias.copy_(self.biases)

    @abstractmethod
    def _places(self) -> Tensor | slice:
        """Where the weights are in the module's, read row by row."""


def features_panel(features: int, count: int) -> Tensor:
    """Zeros (features, width) for `count` examples: whole vectors, and rows not a whole number of kilobytes apart.

    Rows at such distances would share few places of a cache and drive each other out.
    """
    lanes = host().lanes
    width = -(-count // lanes) * lanes
    return torch.zeros(features, width + lanes if width % KILOBYTE == 0 else width)


def by_block(pattern: Pattern, numbers: Tensor) -> list[np.ndarray]:
    """The numbers of each block of a pattern, as views."""
    return [part.numpy() for part in numbers.split([block.nonzeros for block in pattern.blocks])]
