"""What a forward pass costs, counted and not estimated. One multiply-add is two FLOPs.

FLOPs of a masked network say what a perfect sparse engine would do; they are no speed-up by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from tombola.compression.counter import counted
from tombola.compression.dead import units_of_chain
from tombola.pruning import Masks
from tombola.pruning.wrapped import unwrapped


@dataclass(frozen=True)
class Flops:
    """FLOPs of one example's forward pass: `dense` ignores masks, `effective` counts kept weights only.

    Kept weights of dead units count, since sparse kernels multiply by them: `without_dead` leaves them out,
    too, and is None where that is not known exactly (`dead`). `unseen`: pruned weights that no operation took as they
    are, so that what their removed ones save is not in `effective`.
    """

    dense: int
    effective: int
    without_dead: int | None = field(default=None, compare=False)
    unseen: tuple[str, ...] = ()


def count_flops(
    model: nn.Module, input_shape: Sequence[int], masks: Masks, dtype: torch.dtype = torch.float32
) -> Flops:
    """Counts the products of a forward pass in evaluation, and which of them a weight that is removed saves.

    Biases and activations are not counted, as in the literature. A layer that is called twice costs twice, one that is
    not called nothing. The model is not run, only a copy without numbers; what torch's counter of operations does not
    know costs nothing here.

    Args:
        model: Any module; it is not changed.
        input_shape: The shape of one example.
        masks: Which weights are kept; layers that they leave out keep all.
        dtype: Of the example: int64 where it is token ids.

    Returns:
        Flops: `dense`, `effective` (without removed weights), and what they consist of.

    Raises:
        ModelError: for masks of another model, models that cannot be copied, that do not take such an input, that ask
            for the values of numbers, or that reach their layers past a copy (by a global, say).

    Examples:
        >>> from torch import nn
        >>> from tombola import prune
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10))
        >>> flops = count_flops(model, (1, 28, 28), prune(model, 0.9))
        >>> flops.dense, flops.effective
        (476400, 47640)
    """
    model = unwrapped(model)
    masks = masks.of(model)
    counter, unseen = counted(model, {name: mask.keep for name, mask in masks.items()}, input_shape, dtype)
    removed_unseen = tuple(name for name in masks if name in unseen and masks[name].kept < masks[name].total)
    chain = units_of_chain(model, masks)
    without_dead = None if chain is None else 2 * chain.weights
    return Flops(counter.dense, round(counter.dense - counter.saved), without_dead, removed_unseen)


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
