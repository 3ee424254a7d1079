"""A network behind the normalisation of its inputs, so that it takes what data hold: numbers in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tombola.models.spec import Normalisation
from tombola.pruning import Masks

NETWORK = "network"


class Normalised(nn.Module):
    """(input - mean) / std, a number a channel or one for all, and then the network."""

    def __init__(self, network: nn.Module, normalisation: Normalisation, dims: int) -> None:
        """`dims`: the axes of a batch."""
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.network = network
        self.normalisation = normalisation
        shape = [-1 if axis == 1 else 1 for axis in range(dims)]
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(normalisation.std).view(shape), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.network(inputs.sub(self.mean).div(self.std))
        return outputs


def behind_normalisation(
    network: nn.Module, masks: Masks, normalisation: Normalisation, dims: int
) -> tuple[nn.Module, Masks]:
    """The network that takes inputs in [0, 1], and its masks by its names; itself where nothing is normalised."""
    if normalisation == Normalisation():
        return network, masks
    return Normalised(network, normalisation, dims), Masks({f"{NETWORK}.{name}": m for name, m in masks.items()})
