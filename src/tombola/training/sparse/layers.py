"""Linear layers in a sparse step, on panels: activations (features, width), examples innermost.

With X the panel of inputs, Y = W X + b, D the gradient of Y: dW = D X' where the mask keeps, db = the sums of D, and
the gradient of X is W' D. A layer that keeps most of its weights is faster with torch's dense products on these panels.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor, nn

from tombola.kernels.packing import block_columns, pack
from tombola.kernels.products import Epilogue
from tombola.kernels.program import Step, Where
from tombola.kernels.samples import SAMPLED_PRODUCT
from tombola.kernels.steps import panel_products
from tombola.kernels.updates import GATHER
from tombola.training.gradients import relu_backward_
from tombola.training.sparse.layer import Layer, Load, by_block, features_panel
from tombola.training.sparse.operations import Operation


class LinearLayer(Layer):
    """On panels (features, width), however its products are computed."""

    module: nn.Linear

    @property
    def features(self) -> int:
        return self.module.in_features

    def entrance(self, count: int, load: Load) -> tuple[Tensor, list[Operation]]:
        panel = features_panel(self.module.in_features, count)
        return panel, [load(0, count, _at(panel), panel.shape[1])]

    def outputs(self, count: int) -> Tensor:
        return features_panel(self.module.out_features, count)


class SparseLayer(LinearLayer):
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
        values = by_block(self.pattern, self.weights)
        return [*panel_products(self.pattern, values, self.biases.numpy(), _at(x), _at(y), x.shape[1], epilogue)]

    def backward(self, delta: Tensor, x: Tensor) -> list[Operation]:
        width = x.shape[1]
        steps: list[Operation] = []
        for block, gradients in zip(self.pattern.blocks, by_block(self.pattern, self.weight_gradients), strict=True):
            inputs = Where(x.numpy(), block.first * width)
            matrix = (self.pattern.shape[0], block.starts, block.columns)
            arguments = (*matrix, _at(delta), inputs, gradients, self.bias_gradients.numpy(), width, width)
            steps.append(Step(SAMPLED_PRODUCT, arguments))
        return steps

    def below(self, delta: Tensor, x: Tensor, delta_below: Tensor) -> list[Operation]:
        places = self._places_of_transposed
        values = np.empty(len(places), dtype=np.float32)
        zeros = np.zeros(self.module.in_features, dtype=np.float32)
        gather = Step(GATHER, (len(places), places, self.weights.numpy(), values))
        products = panel_products(
            self.transposed,
            by_block(self.transposed, torch.from_numpy(values)),
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


class DenseLayer(LinearLayer):
    """All weights, by torch's products; the gradients of removed ones are put to 0."""

    def __init__(self, linear: nn.Linear, keep: Tensor | None, relu: bool) -> None:
        super().__init__(linear, relu)
        self.keep = None if keep is None or bool(keep.all()) else keep.float()

    @property
    def count(self) -> int:
        return self.module.weight.numel()

    def _places(self) -> slice:
        return slice(None)

    def read(self) -> None:
        super().read()
        if self.keep is not None:
            self.weights.mul_(self.keep.reshape(-1))

    def forward(self, x: Tensor, y: Tensor) -> list[Operation]:
        weight, bias = self.weights.view_as(self.module.weight), self.biases.unsqueeze(1)

        def operation() -> None:
            torch.addmm(bias, weight, x, out=y)
            if self.relu:
                y.relu_()

        return [operation]

    def backward(self, delta: Tensor, x: Tensor) -> list[Operation]:
        gradient = self.weight_gradients.view_as(self.module.weight)

        def operation() -> None:
            torch.mm(delta, x.t(), out=gradient)
            if self.keep is not None:
                gradient.mul_(self.keep)
            torch.sum(delta, 1, out=self.bias_gradients)

        return [operation]

    def below(self, delta: Tensor, x: Tensor, delta_below: Tensor) -> list[Operation]:
        weight = self.weights.view_as(self.module.weight)

        def operation() -> None:
            torch.mm(weight.t(), delta, out=delta_below)
            relu_backward_(delta_below, x, 0, grad_input=delta_below)

        return [operation]


def _at(panel: Tensor) -> Where:
    return Where(panel.numpy())
