"""All that is trained, as one vector: every layer's kept weights and biases, its gradients beside it."""

from __future__ import annotations

import torch
from torch import Tensor

PADDING = 16
"""The vector's length is a multiple of this, so that updates go by whole vector registers; what is beyond stays 0."""


class KeptParameters:
    """`values` and `gradients` (float32), given out part by part with `take`."""

    def __init__(self, count: int) -> None:
        self.count = -(-count // PADDING) * PADDING
        self.values = torch.zeros(self.count)
        self.gradients = torch.zeros(self.count)
        self._taken = 0

    def take(self, count: int) -> slice:
        """The next `count` numbers."""
        self._taken += count
        return slice(self._taken - count, self._taken)

    def pair(self, part: slice) -> tuple[Tensor, Tensor]:
        """The values and gradients of a part."""
        return self.values[part], self.gradients[part]
