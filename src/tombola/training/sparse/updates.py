"""SGD, Adam and AdamW on the kept vector: one native call that reads and writes every number once.

The same updates as those of `training/optimizers.py`, up to the rounding of fused multiplications.
"""

from __future__ import annotations

import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tombola.kernels.compiler import Kernel, compiled
from tombola.kernels.updates import ADAM, SGD
from tombola.training.optimizers import BETA1, BETA2, EPSILON
from tombola.training.recipe import Recipe
from tombola.training.sparse.kept import KeptParameters


class Update(ABC):
    """An optimizer step. `state` holds what a checkpoint must keep."""

    def __init__(
        self, kept: KeptParameters, recipe: Recipe, kernel: Kernel, moments: tuple[str, ...], settings: int
    ) -> None:
        self.recipe = recipe
        self.moments = {name: torch.zeros(kept.count) for name in moments}
        self.steps = 0
        self._settings = np.zeros(settings, dtype=np.float32)
        self._pack = struct.Struct(f"{settings}f").pack_into
        self._call = compiled(kernel).call
        vectors = (kept.values, kept.gradients, *self.moments.values())
        self._arguments = (kept.count, *(vector.data_ptr() for vector in vectors), self._settings.ctypes.data)

    def __call__(self, rate: float) -> None:
        """One update with learning rate `rate`."""
        self.steps += 1
        self._pack(self._settings.data, 0, *self.settings(rate))
        self._call(*self._arguments)

    @abstractmethod
    def settings(self, rate: float) -> tuple[float, ...]:
        """The kernel's numbers for this step."""

    @property
    def state(self) -> dict[str, Tensor]:
        return {**self.moments, "steps": torch.tensor(self.steps)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        for name, moment in self.moments.items():
            moment.copy_(state[name])
        self.steps = int(state["steps"])


class SgdUpdate(Update):
    """Stochastic gradient descent with momentum and L2 weight decay."""

    def __init__(self, kept: KeptParameters, recipe: Recipe) -> None:
        super().__init__(kept, recipe, SGD, ("momentum",), 3)

    def settings(self, rate: float) -> tuple[float, ...]:
        return (rate, self.recipe.momentum, self.recipe.weight_decay)


class AdamUpdate(Update):
    """Adam; with `decoupled` AdamW, whose weight decay is no part of the gradient."""

    def __init__(self, kept: KeptParameters, recipe: Recipe, decoupled: bool = False) -> None:
        super().__init__(kept, recipe, ADAM, ("first_moment", "second_moment"), 8)
        self.decoupled = decoupled

    def settings(self, rate: float) -> tuple[float, ...]:
        step = rate / (1 - BETA1**self.steps)
        correction = 1 / math.sqrt(1 - BETA2**self.steps)
        decay = 0.0 if self.decoupled else self.recipe.weight_decay
        shrink = 1 - rate * self.recipe.weight_decay if self.decoupled else 1.0
        return (step, 1 - BETA1, BETA2, 1 - BETA2, correction, EPSILON, decay, shrink)


def make_update(kept: KeptParameters, recipe: Recipe) -> Update:
    """The recipe's optimizer on a kept vector."""
    if recipe.optimizer == "sgd":
        return SgdUpdate(kept, recipe)
    return AdamUpdate(kept, recipe, decoupled=recipe.optimizer == "adamw")
