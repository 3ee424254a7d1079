"""Weights that are kept and do nothing: those of units that no kept weight reaches, or whose output none reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tombola.compression.layers import IDENTITIES
from tombola.pruning import Masks
from tombola.training.gradients import linear_chain


def weights_of_live_units(model: nn.Module, masks: Masks) -> int | None:
    """How many kept weights of a chain of Linear and ReLU layers lie on a way from an input to an output.

    A unit without kept inputs is a constant, which the next layer's bias can hold; one without kept outputs is read by
    nobody: neither needs its other weights. None for models that are no such chain, where this is not exact (a
    constant that meets a convolution's border of zeros is none any more).
    """
    plain = nn.Sequential(*(m for m in model if type(m) not in IDENTITIES)) if type(model) is nn.Sequential else model
    layers = linear_chain(plain)
    if layers is None or any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers):
        return None
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    keeps = [_keep(masks, names[id(layer.weight)], layer.weight) for layer in layers]
    reached = [torch.ones(keeps[0].shape[1], dtype=torch.bool)]
    for keep in keeps[:-1]:
        reached.append((keep & reached[-1]).any(1))
    read = [torch.ones(len(keeps[-1]), dtype=torch.bool)]
    for keep in reversed(keeps[1:]):
        read.insert(0, (keep & read[0][:, None]).any(0))
    return sum(int((k & i & o[:, None]).sum()) for k, i, o in zip(keeps, reached, read, strict=True))


def _keep(masks: Masks, name: str, weight: Tensor) -> Tensor:
    return masks[name].keep.cpu() if name in masks else torch.ones(weight.shape, dtype=torch.bool)
