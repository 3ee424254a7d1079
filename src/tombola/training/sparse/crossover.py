"""Which layers of a network are trained on sparse kernels."""

from __future__ import annotations

from torch import nn

from tombola.pruning import Masks

CROSSOVER = 0.85
"""Density up to which a layer's sparse step was measured faster than its dense one (`benchmarks/sparse_training.py`).

A number and not a measurement at the beginning of each training, because a measurement would differ from one start to
the next, and with it the rounding of a training that is continued.
"""


def sparse_layers(model: nn.Module, layers: list[nn.Linear], masks: Masks, *, everything: bool) -> list[bool]:
    """For each layer whether its mask is sparse enough; `everything` says yes for all."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    densities = [masks[name].density if (name := names[id(layer.weight)]) in masks else 1.0 for layer in layers]
    return [everything or density <= CROSSOVER for density in densities]
