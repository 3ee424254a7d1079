"""One Linear layer in a sparse step, on panels: activations (features, width), examples innermost.

With X the panel of inputs, Y = W X + b, D the gradient of Y: dW = D X' where the mask keeps, db = the sums of D, and
the gradient of X is W' D. A layer that keeps most of its weights is faster with torch's dense products on these panels.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from tombola.kernels.packing import Pattern, block_columns, pack
from tombola.kernels.products import Epilogue
from tombola.kernels.program import Step, Where
from tombola.kernels.samples import SAMPLED_PRODUCT
from tombola.kernels.steps import panel_products
from tombola.kernels.updates import GATHER
from tombola.training.gradients import relu_backward_
from tombola.training.sparse.live import Live
from tombola.training.sparse.operations import Operation


class Layer(ABC):
    """A layer's part of the live vector, and the operations of a step on it. `relu` follows all but the last."""

    def __init__(self, linear: nn.Linear, relu: bool) -> None:
        self.linear = linear
        self.relu = relu

    @property
    @abstractmethod
    def count(self) -> int:
        """How many numbers of the live vector its weights take."""

    def attach(self, live: Live) -> None:
        """Takes its parts of the live vector: weights, then biases."""
        self.weights, self.weight_gradients = live.pair(live.take(self.count))
        self.biases, self.bias_gradients = live.pair(live.take(self.linear.out_features))

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
        self.weights.copy_(self.linear.weight.reshape(-1)[self._places()])
        self.biases.copy_(self.linear.bias)

    @torch.no_grad()
    def write_back(self) -> None:
        """Gives the weights to the module; its removed ones are 0."""
        weight = torch.zeros(self.linear.weight.numel())
        weight[self._places()] = self.weights
        self.linear.weight.copy_(weight.view_as(self.linear.weight))
        self.linear.bias.copy_(self.biases)

    @abstractmethod
    def _places(self) -> Tensor | slice:
        """Where the weights are in the module's, read row by row."""


class SparseLayer(Layer):
    """Kept weights only."""

    def __init__(self, linear: nn.Linear, keep: Tensor, relu: bool) -> None:
        super().__init__(linear, relu)
        mask = keep.numpy()
        density = float(mask.mean())
        self.pattern = pack(mask, block_columns(linear.in_features, density))
        self.transposed = pack(mask.T, block_columns(linear.out_features, density))
        self.places = torch.from_numpy(self.pattern.places)

    @property
    def count(self) -> int:
        return self.pattern.nonzeros

    def _places(self) -> Tensor:
        return self.places

    def forward(self, x: Tensor, y: Tensor) -> list[Operation]:
        epilogue = Epilogue.RELU if self.relu else Epilogue.NONE
        values = _by_block(self.pattern, self.weights)
        return [*panel_products(self.pattern, values, self.biases.numpy(), _at(x), _at(y), x.shape[1], epilogue)]

    def backward(self, delta: Tensor, x: Tensor) -> list[Operation]:
        width = x.shape[1]
        steps: list[Operation] = []
        for block, gradients in zip(self.pattern.blocks, _by_block(self.pattern, self.weight_gradients), strict=True):
            inputs = Where(x.numpy(), block.first * width)
            matrix = (self.pattern.shape[0], block.starts, block.columns)
            arguments = (*matrix, _at(delta), inputs, gradients, self.bias_gradients.numpy(), width, width)
            steps.append(Step(SAMPLED_PRODUCT, arguments))
        return steps

    def below(self, delta: Tensor, x: Tensor, delta_below: Tensor) -> list[Operation]:
        places = self._places_of_transposed
        values = np.empty(len(places), dtype=np.float32)
        zeros = np.zeros(self.linear.in_features, dtype=np.float32)
        gather = Step(GATHER, (len(places), places, self.weights.numpy(), values))
        products = panel_products(
            self.transposed,
            _by_block(self.transposed, torch.from_numpy(values)),
            zeros,
            _at(delta),
            _at(delta_below),
            delta.shape[1],
            Epilogue.GATE,
            _at(x),
        )
        return [gather, *products]

    @functools.cached_property
    def _places_of_transposed(self) -> np.ndarray:
        """Where the nonzeros of W', in the order of its blocks, are among the weights."""
        inputs, outputs = self.transposed.shape
        row, column = np.divmod(self.transposed.places, outputs)
        position = np.empty(inputs * outputs, dtype=np.int32)
        position[self.pattern.places] = np.arange(self.count, dtype=np.int32)
        return position[column * inputs + row]


class DenseLayer(Layer):
    """All weights, by torch's products; the gradients of removed ones are put to 0."""

    def __init__(self, linear: nn.Linear, keep: Tensor | None, relu: bool) -> None:
        super().__init__(linear, relu)
        self.keep = None if keep is None or bool(keep.all()) else keep.float()

    @property
    def count(self) -> int:
        return self.linear.weight.numel()

    def _places(self) -> slice:
        return slice(None)

    def read(self) -> None:
        super().read()
        if self.keep is not None:
            self.weights.mul_(self.keep.reshape(-1))

    def forward(self, x: Tensor, y: Tensor) -> list[Operation]:
        weight, bias = self.weights.view_as(self.linear.weight), self.biases.unsqueeze(1)

        def operation() -> None:
            torch.addmm(bias, weight, x, out=y)
            if self.relu:
                y.relu_()

        return [operation]

    def backward(self, delta: Tensor, x: Tensor) -> list[Operation]:
        gradient = self.weight_gradients.view_as(self.linear.weight)

        def operation() -> None:
            torch.mm(delta, x.t(), out=gradient)
            if self.keep is not None:
                gradient.mul_(self.keep)
            torch.sum(delta, 1, out=self.bias_gradients)

        return [operation]

    def below(self, delta: Tensor, x: Tensor, delta_below: Tensor) -> list[Operation]:
        weight = self.weights.view_as(self.linear.weight)

        def operation() -> None:
            torch.mm(weight.t(), delta, out=delta_below)
            relu_backward_(delta_below, x, 0, grad_input=delta_below)

        return [operation]


def _at(panel: Tensor) -> Where:
    return Where(panel.numpy())


def _by_block(pattern: Pattern, numbers: Tensor) -> list[np.ndarray]:
    """The numbers of each block of a pattern, as views."""
    return [part.numpy() for part in numbers.split([block.nonzeros for block in pattern.blocks])]
