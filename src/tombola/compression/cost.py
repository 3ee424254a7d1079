"""What a forward pass costs, counted and not estimated. One multiply-add is two FLOPs.

FLOPs of a masked network say what a perfect sparse engine would do; they are no speed-up by themselves.
"""

from __future__ import annotations

import math
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


@dataclass(frozen=True)
class Size:
    """How much there is of a model: `parameters` in all and `kept` (weights kept, and all that is never pruned).

    `dense_bytes` is what the tensors of its state take as they are, zeros included. `packed_bytes` is what they
    would take with every weight tensor as one bit per weight and the kept values: a size on disk, not a format
    that runs.
    """

    parameters: int
    kept: int
    dense_bytes: int
    packed_bytes: int


def count_size(model: nn.Module, masks: Masks) -> Size:
    """Counts parameters and bytes; tied parameters once."""
    parameters = dict(model.named_parameters())
    stored = model.state_dict().keys()
    tensors = {**parameters, **{name: buffer for name, buffer in model.named_buffers() if name in stored}}
    total = sum(parameter.numel() for parameter in parameters.values())
    dense = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    packed = dense
    for name, mask in masks.items():
        width = parameters[name].element_size()
        packed += min(0, math.ceil(mask.total / 8) + mask.kept * width - mask.total * width)
    return Size(total, total - masks.total + masks.kept, dense, packed)


def _weight_of_module(model: nn.Module) -> dict[str, str]:
    """Module name -> name of its prunable weight (two modules may share one)."""
    names = {id(parameter): name for name, parameter in prunable_parameters(model).items()}
    return {
        name: names[id(module.weight)]
        for name, module in model.named_modules()
        if id(getattr(module, "weight", None)) in names
    }
