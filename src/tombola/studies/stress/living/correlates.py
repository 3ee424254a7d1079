"""What goes along with lost plasticity: dormant neurons, the rank of representations, the size of weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tombola.models.causal.families import attention_layers
from tombola.pruning.modes import evaluation_mode
from tombola.runs.rows import Row
from tombola.training.completions import Completions
from tombola.training.device import device_of

ITEMS = 16
DORMANT = 0.025
"""A neuron is, whose mean |activation| is at most this fraction of the layer (Sokar et al. 2023, arXiv 2302.12902)."""


def correlates(network: nn.Module, tasks: Sequence[Completions], keep: Sequence[Tensor] | None = None) -> Row:
    """Of a network on held-out items. `keep`: which neurons of each layer are there, (neurons,), where some are gone.

    Returns:
        `dormant`: the fraction of feed-forward neurons that are dormant, of those that are there; `effective_rank`: exp
        of the entropy of the normalised singular values of the last hidden states (Roy & Vetterli 2007);
        `weight_norm`: the square root of the mean square of all parameters.
    """
    activity, states = _looked_at(network, tasks)
    values = torch.linalg.svdvals(states - states.mean(0))
    spread = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    rank = float(torch.special.entr(spread).sum().exp()) if float(values.sum()) > 0 else None
    parameters = list(network.parameters())
    squares = sum(float(parameter.detach().cpu().double().pow(2).sum()) for parameter in parameters)
    kept = activity if keep is None else [mean.cpu()[there] for mean, there in zip(activity, keep, strict=True)]
    dormant = [dormant_neurons(mean) for mean in kept]
    reason = {} if rank is not None else {"effective_rank_reason": "the hidden state is the same at every token"}
    return {
        "dormant": sum(int(found.sum()) for found in dormant) / sum(map(len, dormant)),
        "effective_rank": rank,
        **reason,
        "weight_norm": (squares / sum(parameter.numel() for parameter in parameters)) ** 0.5,
    }


def dormant_neurons(activity: Tensor) -> Tensor:
    """Which neurons of a layer are dormant, (neurons,), from their mean |activation|."""
    return activity <= DORMANT * activity.mean()


def activities(network: nn.Module, tasks: Sequence[Completions]) -> list[Tensor]:
    """The mean |activation| of every feed-forward neuron, (neurons,) for each layer."""
    return _looked_at(network, tasks)[0]


def _looked_at(network: nn.Module, tasks: Sequence[Completions]) -> tuple[list[Tensor], Tensor]:
    """Mean |activations| by layer, and the last hidden states of tokens that count, (tokens, width)."""
    sums: dict[int, Tensor] = {}
    states: list[Tensor] = []
    with evaluation_mode(network), torch.no_grad(), _watched(network, sums) as valid:
        device = device_of(network)
        for task in tasks:
            items = task.first(ITEMS).held_out
            ids, counted = items.ids, items.counted
            valid[:] = [task.valid_of((ids, counted)).to(device)]
            found: Any = network(input_ids=ids[:, :-1].to(device), output_hidden_states=True)
            states.append(found.hidden_states[-1][counted.to(device)].cpu().double())
    return [sums[layer] for layer in sorted(sums)], torch.cat(states)


@contextlib.contextmanager
def _watched(network: nn.Module, sums: dict[int, Tensor]) -> Iterator[list[Tensor]]:
    """Adds up what goes into every feed-forward read-out. The list holds which tokens are no padding."""
    valid: list[Tensor] = []

    def add(layer: int, inputs: tuple[Any, ...]) -> None:
        activity = inputs[0].detach().abs()
        flat = activity.reshape(-1, activity.shape[-1])[valid[0].flatten()]  # OPT flattens sequences first
        sums[layer] = sums.get(layer, torch.zeros(flat.shape[1], device=flat.device)) + flat.sum(0)

    handles = [
        layer.widths.read_out.register_forward_pre_hook(lambda _, inputs, index=layer.index: add(index, inputs))
        for layer in attention_layers(network)
    ]
    try:
        yield valid
    finally:
        for handle in handles:
            handle.remove()
