"""All parameters of a model that learn as one vector, so that an optimizer step and a mask are one operation each.

The model's parameters become views of the vector; the model goes on working as before. On a small network
most of a step's cost beyond the matrix products is calls, not arithmetic, and this removes them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tombola.pruning import Masks


class FlatParameters:
    """`values` and `gradients` (float32 vectors) of which the model's parameters and gradients are views.

    Frozen parameters (`requires_grad` False) are no part of it: weight decay would move them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        sizes = [p.numel() for p in self.parameters.values()]
        self.values = torch.cat([p.detach().reshape(-1) for p in self.parameters.values()])
        self.gradients = torch.zeros_like(self.values)
        for parameter, value, gradient in zip(
            self.parameters.values(), self.values.split(sizes), self.gradients.split(sizes), strict=True
        ):
            parameter.data = value.view(parameter.shape)
            parameter.grad = gradient.view(parameter.shape)

    def multiplier(self, masks: Masks) -> Tensor:
        """The masks as a vector of 1 and 0, with 1 for what is never pruned."""
        parts = [
            masks[name].keep.reshape(-1).float() if name in masks else torch.ones(parameter.numel())
            for name, parameter in self.parameters.items()
        ]
        return torch.cat([part.to(self.values.device) for part in parts])
