"""SGD, Adam and AdamW on one vector: torch's own fused kernels, called directly.

`torch.optim` wraps the same kernels in bookkeeping that costs a small network more than the update itself.
The updates are equal to those of `torch.optim` with `fused=True` (a test compares them).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tombola.training.recipe import Recipe

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Optimizer(ABC):
    """Updates `values` in place from `gradients`. `state` holds every tensor that a checkpoint must keep."""

    def __init__(self, values: Tensor, gradients: Tensor, recipe: Recipe) -> None:
        self.values = values
        self.gradients = gradients
        self.recipe = recipe
        self.state: dict[str, Tensor] = {}

    @abstractmethod
    def step(self, rate: float) -> None:
        """One update with learning rate `rate`."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from a stored `state`."""
        for name, tensor in state.items():
            self.state[name].copy_(tensor)

    def forget(self, returning: Tensor) -> None:
        """Resets what is kept of weights that come back, as if they had never been met."""
        for tensor in self.state.values():
            if tensor.shape == returning.shape:
                tensor.masked_fill_(returning, 0)


class Sgd(Optimizer):
    """Stochastic gradient descent with optional momentum and L2 weight decay, as torch.optim.SGD."""

    def __init__(self, values: Tensor, gradients: Tensor, recipe: Recipe) -> None:
        super().__init__(values, gradients, recipe)
        if recipe.momentum:
            self.state["momentum"] = torch.zeros_like(values)

    def step(self, rate: float) -> None:
        torch._fused_sgd_(
            [self.values],
            [self.gradients],
            list(self.state.values()),
            weight_decay=self.recipe.weight_decay,
            momentum=self.recipe.momentum,
            lr=rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, arXiv 1412.6980), its weight decay an L2 term, as torch.optim.Adam."""

    kernel: Callable[..., Any] = staticmethod(torch._fused_adam_)

    def __init__(self, values: Tensor, gradients: Tensor, recipe: Recipe) -> None:
        super().__init__(values, gradients, recipe)
        self.state = {
            "first_moment": torch.zeros_like(values),
            "second_moment": torch.zeros_like(values),
            "steps": torch.zeros((), device=values.device),
        }

    def step(self, rate: float) -> None:
        steps = self.state["steps"]
        steps += 1
        self.kernel(
            [self.values],
            [self.gradients],
            [self.state["first_moment"]],
            [self.state["second_moment"]],
            [],
            [steps],
            lr=rate,
            beta1=BETA1,
            beta2=BETA2,
            weight_decay=self.recipe.weight_decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101)."""

    kernel: Callable[..., Any] = staticmethod(torch._fused_adamw_)


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": Sgd, "adam": Adam, "adamw": AdamW}
