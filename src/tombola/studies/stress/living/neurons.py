"""The same for neurons of feed-forward layers: what each is worth, a tensor (neurons,) for every layer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from tombola.pruning.modes import evaluation_mode
from tombola.registry import Registry
from tombola.studies.stress.living.strategies import Scoring, by_input

NeuronStrategy = Callable[[Scoring], list[Tensor]]
neuron_strategies: Registry[NeuronStrategy] = Registry("strategy for neurons")


@neuron_strategies.register("magnitude")
def magnitude(scoring: Scoring) -> list[Tensor]:
    """The norm of what a neuron writes with: its column of the layer that reads out."""
    return [by_input(layer.widths.read_out).norm(dim=1) for layer in scoring.layers]


@neuron_strategies.register("random")
def random(scoring: Scoring) -> list[Tensor]:
    """Chance alone."""
    generator = torch.Generator().manual_seed(scoring.seed)
    return [torch.rand(layer.widths.neurons, generator=generator) for layer in scoring.layers]


@neuron_strategies.register("gradient")
def gradient(scoring: Scoring) -> list[Tensor]:
    """E |dL / d gate| over examples, as for heads: a gate's gradient is that of the activation times the activation."""
    total = [torch.zeros(layer.widths.neurons) for layer in scoring.layers]
    with evaluation_mode(scoring.network), _activations(scoring) as found:
        for task, batch in scoring.batches:
            task.loss(scoring.network, batch).backward()
            for layer, activation in found.items():
                assert activation.grad is not None
                each = (activation.detach() * activation.grad).reshape(len(batch[0]), -1, len(total[layer]))
                total[layer] += each.sum(1).abs().sum(0).cpu()
            scoring.network.zero_grad(set_to_none=True)
    return [scores / scores.norm().clamp(min=torch.finfo(scores.dtype).tiny) for scores in total]


@contextlib.contextmanager
def _activations(scoring: Scoring) -> Iterator[dict[int, Tensor]]:
    """What goes into every read-out in the last pass, by layer; it keeps its gradient."""
    found: dict[int, Tensor] = {}

    def keep(layer: int, inputs: tuple[Any, ...]) -> None:
        inputs[0].retain_grad()
        found[layer] = inputs[0]

    handles = [
        layer.widths.read_out.register_forward_pre_hook(lambda _, inputs, index=layer.index: keep(index, inputs))
        for layer in scoring.layers
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
