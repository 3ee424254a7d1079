"""What a forward pass costs, counted and not estimated. One multiply-add is two FLOPs.

FLOPs of a masked network say what a perfect sparse engine would do; they are no speed-up by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from tombola.pruning import Masks, prunable_parameters
from tombola.pruning.modes import evaluation_mode
from tombola.pruning.observe import names_of_weights, observed
from tombola.pruning.prunable import ATTENTION_WEIGHTS


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
    counter = FlopCounterMode(display=False)
    attention = _AttentionSavings(model, masks)
    with evaluation_mode(model), observed(attention.modules, attention), torch.no_grad(), counter:
        functional_call(model, on_meta, torch.empty(1, *input_shape, device="meta"))
    total = counter.get_total_flops()
    by_module = {name.partition(".")[2]: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    saved = sum(
        by_module.get(module, 0) * masks[parameter].sparsity for module, parameter in _weight_of_module(model).items()
    )
    return Flops(total, round(total - saved - attention.saved))


class _AttentionSavings:
    """FLOPs that removed weights of attention's projections save: 2 for each at every position.

    The counter sees an attention layer as a whole, whose products of queries and keys no mask makes fewer.
    """

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        self.modules = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
        self.names = names_of_weights(model)
        self.masks = masks
        self.saved = 0

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        given = dict(zip(("query", "key", "value"), arguments, strict=False)) | keywords
        positions = [given[role].numel() // given[role].shape[-1] for role in ("query", "key", "value")]
        if (module, "in_proj_weight") in self.names:
            removed = [int((~part).sum()) for part in self._keep(module, "in_proj_weight").chunk(3)]
        else:
            removed = [int((~self._keep(module, name)).sum()) for name in ATTENTION_WEIGHTS[1:]]
        after = int((~self._keep(module.get_submodule("out_proj"), "weight")).sum())
        self.saved += 2 * sum(map(math.prod, zip(positions, removed, strict=True))) + 2 * positions[0] * after

    def _keep(self, module: nn.Module, attribute: str) -> Tensor:
        return self.masks[self.names[module, attribute]].keep


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
