"""Heads and neurons alike: which of them go, the masks that hold it, and the network without them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tombola.compression.removal.heads import RemovedHeads, remove_heads
from tombola.models.causal.heads import mask_of_heads, mask_of_neurons, select_heads, select_neurons
from tombola.pruning import Masks
from tombola.studies.stress.living.neurons import neuron_strategies
from tombola.studies.stress.living.strategies import Scoring, strategies

HEAD = "head"


def masks_of(network: nn.Module, structure: str, keep: Sequence[Tensor]) -> Masks:
    """The masks under which what `keep` lacks says nothing."""
    return mask_of_heads(network, torch.stack(list(keep))) if structure == HEAD else mask_of_neurons(network, keep)


def chosen(
    scoring: Scoring, structure: str, strategy: str, level: float, keep: Sequence[Tensor], equal: bool
) -> list[Tensor]:
    """What is left at a level, of what was left before: exactly as many as asked, the least worth gone."""
    if structure == HEAD:
        return list(select_heads(strategies.get(strategy)(scoring), level, torch.stack(list(keep)), equal))
    return select_neurons(neuron_strategies.get(strategy)(scoring), level, list(keep), equal)


def made_smaller(network: nn.Module, structure: str, keep: Sequence[Tensor]) -> RemovedHeads:
    """The network without what is masked, really smaller; ModelError where its outputs were others."""
    return remove_heads(network, list(keep)) if structure == HEAD else remove_heads(network, neurons=list(keep))
