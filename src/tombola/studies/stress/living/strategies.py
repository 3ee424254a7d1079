"""What a head, or a neuron of a feed-forward layer, is worth to a network: one number each, the lowest goes first.

Scores are computed on training items of the tasks that the network is about to learn, never on held-out ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tombola.models.causal.entropy import EntropyRecorder
from tombola.models.causal.families import AttentionLayer, attention_layers
from tombola.models.causal.gates import HeadGates
from tombola.pruning.modes import evaluation_mode
from tombola.pruning.prunable import is_hugging_face_conv1d
from tombola.registry import Registry
from tombola.training.completions import Completions
from tombola.training.device import device_of

EXAMPLES = 8
"""Training items of each task that are looked at."""


@dataclass(frozen=True)
class Scoring:
    """What a strategy may look at: the network, training items of its `tasks`, a seed for chance."""

    network: nn.Module
    tasks: Sequence[Completions]
    seed: int

    @property
    def layers(self) -> list[AttentionLayer]:
        return attention_layers(self.network)

    @property
    def batches(self) -> list[tuple[Completions, Any]]:
        """The first batch of every task, in the task's own order."""
        return [(task, task.batches(EXAMPLES, 0).at(0)) for task in self.tasks]


Strategy = Callable[[Scoring], Tensor]
"""Scores of heads, (layers, heads)."""
strategies: Registry[Strategy] = Registry("strategy")


@strategies.register("entropy_low")
def focused(scoring: Scoring) -> Tensor:
    """The mean entropy of a head: those that look at one place go first."""
    return entropy_of(scoring.network, scoring.batches)


def entropy_of(network: nn.Module, batches: Sequence[tuple[Completions, Any]]) -> Tensor:
    """The mean entropy of every head over batches, (layers, heads), from 0 (looks at one place) to 1."""
    layers = attention_layers(network)
    total = torch.zeros(len(layers), layers[0].heads)

    def add(layer: int, entropy: Tensor) -> None:
        total[layer] += entropy.cpu()

    recorder = EntropyRecorder(network, add, sequences=EXAMPLES, training_only=False)
    with evaluation_mode(network), torch.no_grad(), recorder:
        for task, batch in batches:
            recorder.valid = task.valid_of(batch)
            task.loss(network, batch)
    return total / len(batches)


@strategies.register("entropy")
def diffuse(scoring: Scoring) -> Tensor:
    """The same with the sign changed: heads that look everywhere go first."""
    return -focused(scoring)


@strategies.register("magnitude")
def magnitude(scoring: Scoring) -> Tensor:
    """The norm of what a head writes with: its columns of the attention's output projection."""
    return torch.stack([_columns(layer).pow(2).sum((1, 2)).sqrt() for layer in scoring.layers])


def _columns(layer: AttentionLayer) -> Tensor:
    """The weights that read each head, (heads, size of a head, outputs)."""
    return by_input(layer.projection).reshape(layer.heads, layer.head_size, -1)


def by_input(linear: Any) -> Tensor:
    """The weights of a linear layer, (inputs, outputs)."""
    weight: Tensor = linear.weight.detach()
    return weight if is_hugging_face_conv1d(linear) else weight.T


@strategies.register("random")
def random(scoring: Scoring) -> Tensor:
    """Chance alone: what every other strategy has to beat."""
    layers = scoring.layers
    generator = torch.Generator().manual_seed(scoring.seed)
    return torch.rand(len(layers), layers[0].heads, generator=generator)


@strategies.register("gradient")
def gradient(scoring: Scoring) -> Tensor:
    """E |dL / d gate| over examples, its norm 1 in every layer (Michel, Levy & Neubig 2019, arXiv 1905.10650)."""
    layers = scoring.layers
    total = torch.zeros(len(layers), layers[0].heads)
    with evaluation_mode(scoring.network), HeadGates(scoring.network) as gates:
        for task, batch in scoring.batches:
            shape = (
                len(batch[0]),
                *total.shape,
            )  # a gate for every example, whose gradient has its absolute value taken
            gates.values = torch.ones(shape, device=device_of(scoring.network), requires_grad=True)
            (found,) = torch.autograd.grad(task.loss(scoring.network, batch), gates.values)
            total += found.abs().sum(0).cpu()
    return with_equal_norms(total)


@strategies.register("oracle")
def oracle(scoring: Scoring) -> Tensor:
    """What the loss becomes without the head, each removed alone: as many passes as there are heads."""
    layers = scoring.layers
    scores = torch.zeros(len(layers), layers[0].heads)
    with evaluation_mode(scoring.network), torch.no_grad(), HeadGates(scoring.network) as gates:
        for layer, gate in enumerate(gates.values):
            for head in range(len(gate)):
                gate[head] = 0
                scores[layer, head] = sum(float(task.loss(scoring.network, batch)) for task, batch in scoring.batches)
                gate[head] = 1
    return scores / len(scoring.tasks)


def with_equal_norms(scores: Tensor) -> Tensor:
    """Scores (layers, units) with a norm of 1 in every layer; a layer of zeros stays."""
    return scores / scores.norm(dim=1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
