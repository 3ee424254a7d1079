"""What a forward pass costs, counted and not estimated. One multiply-add is two FLOPs.

FLOPs of a masked network say what a perfect sparse engine would do; they are no speed-up by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from tombola.pruning import Masks, prunable_parameters


@dataclass(frozen=True)
class Flops:
    """FLOPs of one example's forward pass: `dense` ignores masks, `effective` counts kept weights only."""

    dense: int
    effective: int


def count_flops(model: nn.Module, input_shape: Sequence[int], masks: Masks) -> Flops:
    """Counts with torch's flop counter on the meta device; each layer's share is scaled by its density.

    `input_shape` is that of one example. Biases and activations are not counted, as in the literature.
    """
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    on_meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    modes = {module: module.training for module in model.modules()}  # a part may be frozen in eval mode
    model.eval()
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            functional_call(model, on_meta, torch.empty(1, *input_shape, device="meta"))
    finally:
        for module, training in modes.items():
            module.training = training
    total = counter.get_total_flops()
    by_module = {name.partition(".")[2]: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    saved = sum(
        by_module.get(module, 0) * masks[parameter].sparsity for module, parameter in _weight_of_module(model).items()
    )
    return Flops(total, round(total - saved))


def _weight_of_module(model: nn.Module) -> dict[str, str]:
    """Module name -> name of its prunable weight (two modules may share one)."""
    names = {id(parameter): name for name, parameter in prunable_parameters(model).items()}
    return {
        name: names[id(module.weight)]
        for name, module in model.named_modules()
        if id(getattr(module, "weight", None)) in names
    }
