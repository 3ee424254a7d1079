"""Initial weights from a seed. Biases start at 0."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tombola.pruning import prunable_parameters
from tombola.registry import Registry

Initialiser = Callable[[torch.Tensor, torch.Generator], object]
initialisers: Registry[Initialiser] = Registry("initialisation")


@initialisers.register("glorot-normal")
def glorot_normal(weight: torch.Tensor, generator: torch.Generator) -> object:
    """Normal, variance 2 / (fan_in + fan_out). Glorot & Bengio 2010; used by Frankle & Carbin 2019."""
    return nn.init.xavier_normal_(weight, generator=generator)


@initialisers.register("kaiming-normal")
def kaiming_normal(weight: torch.Tensor, generator: torch.Generator) -> object:
    """Normal, variance 2 / fan_in, for layers followed by ReLU. He et al. 2015 (arXiv 1502.01852)."""
    return nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)


def initialise(model: nn.Module, name: str, seed: int) -> None:
    """Fills the weights of `model` in place, layer by layer from one stream, and sets biases to 0."""
    generator = torch.Generator().manual_seed(seed)
    fill = initialisers.get(name)
    with torch.no_grad():
        for parameter in prunable_parameters(model).values():
            fill(parameter, generator)
        for module in model.modules():
            if isinstance(bias := getattr(module, "bias", None), nn.Parameter):
                bias.zero_()
