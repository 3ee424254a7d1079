"""`remove_heads`: heads and neurons of a causal language model that are really gone, by what we know of its family.

Beside `remove_units`, which reads any model's graph and removes whole groups of heads that share keys and values: here
any head can go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tombola.compression.removal.result import cut_masks
from tombola.compression.removal.verify import TOLERANCE, difference
from tombola.errors import ModelError, PruningError
from tombola.models.causal.families import AttentionLayer, attention_layers
from tombola.models.causal.heads import mask_of_heads, mask_of_neurons
from tombola.models.removed import Removal, parameters, shrink
from tombola.pruning.copies import copy_of
from tombola.pruning.masks import Masks
from tombola.pruning.prunable import is_hugging_face_conv1d
from tombola.pruning.wrapped import unwrapped

LENGTH = 16
"""Tokens of the two sequences by which the smaller model is compared."""


@dataclass(frozen=True)
class RemovedHeads:
    """A smaller language model and what went.

    `kept` are the heads that stay in each layer, by their old numbers; `zeroed` those among them that are masked and
    stay because the layer's other groups of heads keep more: every group has as many heads as the largest, so that keys
    and values can be shared. `masks` are of the smaller model and hold these at 0. `removal` does the same to a fresh
    model (`tombola.models.removed.shrink`). `error` is the largest difference from the masked model's outputs, as a
    fraction of the largest output.
    """

    model: nn.Module
    masks: Masks
    removal: Removal
    kept: tuple[tuple[int, ...], ...]
    zeroed: tuple[tuple[int, ...], ...]
    parameters_before: int
    parameters_after: int
    error: float


def remove_heads(
    model: nn.Module, keep: Tensor | Sequence[Tensor] | None = None, neurons: Sequence[Tensor] | None = None
) -> RemovedHeads:
    """A smaller copy of a causal language model without some heads and neurons, its outputs those of the masked one.

    Proved at once, on tokens. Keys and values that several heads share go with the last of these heads.

    Args:
        model: A causal language model (see `tombola.models.causal.families`); it is not changed.
        keep: Which heads stay, (layers, heads) bool, or one tensor (heads,) a layer, at least one each; None for all.
        neurons: Which neurons of the feed-forward layers stay, one tensor (neurons,) bool a layer; None for all.

    Returns:
        RemovedHeads: the model, its masks, the record, and which masked heads had to stay.

    Raises:
        ModelError: for a model of a family that is not known; where the smaller model gives something else.
        PruningError: where `keep` or `neurons` are not of this model, or leave nothing of a layer.

    Examples:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=4, vocab_size=40, n_positions=16))
        >>> removed = remove_heads(model, torch.tensor([[True, False, True, True]]))
        >>> removed.kept, removed.parameters_before - removed.parameters_after
        (((0, 2, 3),), 268)
    """
    inner = unwrapped(model)
    layers = attention_layers(inner)
    heads = [torch.ones(layer.heads, dtype=torch.bool) for layer in layers] if keep is None else [*keep]
    masks = mask_of_heads(inner, heads)
    if neurons is not None:
        masks = masks & mask_of_neurons(inner, neurons)
    stays = [_filled(layer, row.cpu()) for layer, row in zip(layers, heads, strict=True)]
    removal = _record(inner, layers, stays, neurons)

    reference = copy_of(inner)
    masks.apply_(reference)
    smaller = copy_of(reference)
    shrink(smaller, removal)
    error = difference(reference, copy_of(smaller), _example(inner))
    if not error <= TOLERANCE:
        raise ModelError(f"its outputs differ from the masked model's by {error:.1e} of the largest one")
    zeroed = tuple(_numbers(stay & ~row.cpu()) for stay, row in zip(stays, heads, strict=True))
    return RemovedHeads(
        smaller,
        cut_masks(masks, removal),
        removal,
        tuple(map(_numbers, stays)),
        zeroed,
        parameters(inner),
        parameters(smaller),
        error,
    )


def _filled(layer: AttentionLayer, row: Tensor) -> Tensor:
    """The heads that stay: those of `row`, and masked ones until all groups that have a head have as many."""
    if not row.any():
        raise PruningError(f"layer {layer.index} would lose all its heads; keep one at least")
    groups = row.view(layer.groups, -1).clone()
    most = int(groups.sum(1).max())
    for group in groups:
        if group.any():
            group[(~group).nonzero().flatten()[: most - int(group.sum())]] = True
    return groups.flatten()


def _record(
    model: nn.Module, layers: Sequence[AttentionLayer], heads: Sequence[Tensor], neurons: Sequence[Tensor] | None
) -> Removal:
    """What stays of every dimension that becomes smaller."""
    cuts = _Cuts(model)
    for layer, row in zip(layers, heads, strict=True):
        shared = row.view(layer.groups, -1).any(1)
        outputs: dict[str, list[Tensor]] = {}
        for rows, kept in ((layer.queries, row), (layer.keys, shared), (layer.values, shared)):
            outputs.setdefault(rows.name, []).append(rows.indices[kept].flatten())
        for name, parts in outputs.items():
            cuts.outputs(name, torch.cat(parts).sort().values)
        cuts.inputs(layer.projection_name, row.repeat_interleave(layer.head_size).nonzero().flatten())
    for layer, row in zip(layers, neurons or (), strict=neurons is not None):
        if not row.any():
            raise PruningError(f"layer {layer.index} would lose all its neurons; keep one at least")
        index = row.cpu().nonzero().flatten()
        for name in layer.widths.read_in_names:
            cuts.outputs(name, index)
        cuts.inputs(layer.widths.read_out_name, index)
    return Removal.of(cuts.kept, cuts.sizes)


class _Cuts:
    """Indices that stay, by (tensor, dimension), of linear layers by name; what stays whole is not noted."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.kept: dict[tuple[str, int], Tensor] = {}
        self.sizes: dict[tuple[str, int], int] = {}

    def outputs(self, name: str, index: Tensor) -> None:
        layer: Any = self.model.get_submodule(name)
        self._note(f"{name}.weight", 1 if is_hugging_face_conv1d(layer) else 0, layer.weight, index)
        if layer.bias is not None:
            self._note(f"{name}.bias", 0, layer.bias, index)

    def inputs(self, name: str, index: Tensor) -> None:
        layer: Any = self.model.get_submodule(name)
        self._note(f"{name}.weight", 0 if is_hugging_face_conv1d(layer) else 1, layer.weight, index)

    def _note(self, tensor: str, dim: int, values: Tensor, index: Tensor) -> None:
        if len(index) < values.shape[dim]:
            self.kept[tensor, dim] = index
            self.sizes[tensor, dim] = values.shape[dim]


def _example(model: Any) -> dict[str, Any]:
    """Two sequences of tokens, other ones in each."""
    known = model.get_input_embeddings().num_embeddings
    length = min(LENGTH, getattr(model.config, "max_position_embeddings", LENGTH))
    ids = torch.arange(2 * length, device=model.device).view(2, length) * 7 % known
    return {"input_ids": ids, "use_cache": False}


def _numbers(row: Tensor) -> tuple[int, ...]:
    return tuple(row.nonzero().flatten().tolist())
