"""Who looks at a model while it is trained changes nothing: what is disturbed is put back, what is changed refused.

A training must end with the same bits whether somebody looked or not, and wherever it was killed and continued.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tombola.errors import TrainingError
from tombola.models.tensors import same_bits
from tombola.training.device import device_of, random_states, set_random_states


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, each once; those too that `state_dict` leaves out."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@contextlib.contextmanager
def only_looking(model: nn.Module, iteration: int) -> Iterator[None]:
    """Within the block the model is in somebody else's hands, after `iteration` iterations.

    Modes, gradients, `requires_grad` and torch's random state are as before afterwards, also when the block raises.
    Raises TrainingError, with the name, where a parameter or buffer was changed or replaced.
    """
    before = {name: (tensor, tensor.data_ptr(), tensor.detach().clone()) for name, tensor in tensors_of(model).items()}
    around = _Around.of(model)
    try:
        yield
    finally:
        around.put_back()
    after = tensors_of(model)
    for name, (tensor, place, content) in before.items():
        if after.get(name) is not tensor or tensor.data_ptr() != place or not same_bits(tensor, content):
            raise TrainingError(
                f"{name} was changed by who was told of the evaluation at iteration {iteration}; a callback may look "
                "at the model that is trained, and must change a copy of it only"
            )


@dataclass(frozen=True)
class _Around:
    """What is not learned and still steers a training: modes, where gradients go, the random stream."""

    modes: dict[nn.Module, bool]
    gradients: dict[nn.Parameter, tuple[bool, Tensor | None]]
    chance: dict[str, Tensor]
    device: torch.device

    @classmethod
    def of(cls, model: nn.Module) -> _Around:
        modes = {module: module.training for module in model.modules()}
        gradients = {parameter: (parameter.requires_grad, parameter.grad) for parameter in model.parameters()}
        device = device_of(model)
        return cls(modes, gradients, random_states(device), device)

    def put_back(self) -> None:
        for module, training in self.modes.items():
            module.training = training
        for parameter, (required, gradient) in self.gradients.items():
            parameter.requires_grad_(required)
            parameter.grad = gradient
        set_random_states(self.chance, self.device)
