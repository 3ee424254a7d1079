"""Rewinding: what the kept weights of a round restart from. `init` is W_0, the weights before any training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tombola.pruning import Masks


def rewind(model: nn.Module, start: Mapping[str, Tensor], masks: Masks) -> None:
    """Sets all of `model` to `start` and its removed weights to 0, in place."""
    model.load_state_dict(dict(start), strict=True)
    masks.apply_(model)


def is_rewound(model: nn.Module, start: Mapping[str, Tensor], masks: Masks) -> bool:
    """Whether every kept weight, and all that is never pruned, is bit-equal to `start`, and the rest 0."""
    state = model.state_dict()
    for name, tensor in start.items():
        expected = torch.where(masks[name].keep, tensor, torch.zeros_like(tensor)) if name in masks else tensor
        if not _same_bits(state[name], expected):
            return False
    return len(state) == len(start)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Equality of bytes, which tells -0 from 0 and calls NaN equal to itself."""
    return a.dtype == b.dtype and a.shape == b.shape and _bytes(a).equal(_bytes(b))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
