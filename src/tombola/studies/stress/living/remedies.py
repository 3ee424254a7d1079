"""What is done against lost plasticity between two cycles of tasks, in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from tombola.models.causal.families import attention_layers
from tombola.pruning.prunable import is_hugging_face_conv1d
from tombola.registry import Registry
from tombola.studies.stress.living.correlates import activities, dormant_neurons
from tombola.training.completions import Completions

SHRINK = 0.9
"""What is left of the weights; the rest is a fresh network's."""

RemedyFunction = Callable[[nn.Module, nn.Module, Sequence[Completions]], None]
"""(network, a fresh network of the same form, tasks to look at activations with)"""
remedies: Registry[RemedyFunction] = Registry("remedy")


@remedies.register("none")
def none(network: nn.Module, fresh: nn.Module, tasks: Sequence[Completions]) -> None:
    """Nothing: what the others are compared with."""


@remedies.register("shrink_and_perturb")
def shrink_and_perturb(network: nn.Module, fresh: nn.Module, tasks: Sequence[Completions]) -> None:
    """Weights become 0.9 of what they were and 0.1 of a fresh network's (Ash & Adams 2020, arXiv 1910.08475)."""
    with torch.no_grad():
        for own, new in zip(network.parameters(), fresh.parameters(), strict=True):
            own.lerp_(new.to(own), 1 - SHRINK)


@remedies.register("reset_dormant")
def reset_dormant(network: nn.Module, fresh: nn.Module, tasks: Sequence[Completions]) -> None:
    """Dormant neurons read anew and are read no more at first (ReDo, Sokar et al. 2023, arXiv 2302.12902)."""
    with torch.no_grad():
        layers = zip(attention_layers(network), attention_layers(fresh), activities(network, tasks), strict=True)
        for own, new, activity in layers:
            dormant = dormant_neurons(activity)
            for reader, fresh_reader in zip(own.widths.read_in, new.widths.read_in, strict=True):
                _outputs_of(reader)[dormant] = _outputs_of(fresh_reader)[dormant].to(dormant.device)
                if isinstance(bias := reader.bias, torch.Tensor) and isinstance(fresh_reader.bias, torch.Tensor):
                    bias[dormant] = fresh_reader.bias[dormant].to(dormant.device)
            _inputs_of(own.widths.read_out)[dormant] = 0


def _outputs_of(linear: nn.Module) -> torch.Tensor:
    """A view of the weights, (outputs, inputs)."""
    weight: torch.Tensor = linear.weight.data  # type: ignore[assignment]
    return weight.T if is_hugging_face_conv1d(linear) else weight


def _inputs_of(linear: nn.Module) -> torch.Tensor:
    return _outputs_of(linear).T
