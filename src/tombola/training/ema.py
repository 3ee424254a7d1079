"""Exponential moving averages of what a training changes: of the vector that learns, and of the model's buffers.

The averages are a second set of weights beside the raw ones. They steer nothing: with and without them a training ends
with the same raw bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from tombola.training.device import random_states, set_random_states


def decay_of(fraction: float, iterations: int) -> float:
    """The decay whose averages reach over about `fraction` of a training of so many iterations: 1 - 1/window."""
    return 1 - 1 / max(1.0, fraction * iterations)


class Learner(Protocol):
    """An engine, of which this is all that averaging knows."""

    @property
    def vector(self) -> Tensor:
        """All that learns, which steps change in place."""

    def write_back(self) -> None:
        """Gives the model what the vector holds."""


class Average:
    """The averages of an engine's vector and of the model's buffers.

    average <- d · average + (1 - d) · value, where d is `decay`, but at most t / (t + 1) after t updates: a plain mean
    until the window is full. With `decay` alone the first weights, of which nothing is learned yet, would keep e^-2 of
    the average over half of a training. Buffers that are no floating-point numbers (how many batches a batch norm has
    seen) are copied.
    """

    def __init__(self, model: nn.Module, engine: Learner, decay: float) -> None:
        self.model, self.engine, self.vector, self.decay = model, engine, engine.vector, decay
        self.values = torch.zeros_like(self.vector)
        self.buffers: dict[str, Tensor] = {}
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """To call after every iteration."""
        newest = max(1 - self.decay, 1 / (self.updates + 1))
        self.values.lerp_(self.vector, newest)
        for name, buffer in self.model.named_buffers():
            if name in self.buffers and buffer.is_floating_point():
                self.buffers[name].lerp_(buffer, newest)
            else:
                self.buffers[name] = buffer.detach().clone()
        self.updates += 1

    def hold(self, multiplier: Tensor) -> None:
        """Other masks are in force: what they remove is 0 in the average, too."""
        self.values.mul_(multiplier)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block engine and model have the averages in place of the raw weights and buffers.

        Contents are exchanged and not the tensors, because kernels and views know addresses. Afterwards the raw ones
        are back to the bit, whatever a forward pass wrote meanwhile, and so is torch's random state.
        """
        raw, chance = self.vector.clone(), random_states(self.vector.device)
        buffers = {name: buffer.detach().clone() for name, buffer in self.model.named_buffers()}
        try:
            self._write(self.values, self.buffers)
            yield
        finally:
            self._write(raw, buffers)
            set_random_states(chance, self.vector.device)

    @torch.no_grad()
    def _write(self, values: Tensor, buffers: Mapping[str, Tensor]) -> None:
        self.vector.copy_(values)
        for name, buffer in self.model.named_buffers():
            buffer.copy_(buffers[name])
        self.engine.write_back()

    @property
    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must keep beside `updates`."""
        return {"vector": self.values, **{f"buffer.{name}": buffer for name, buffer in self.buffers.items()}}

    def load_state(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Goes on from a stored `state`."""
        self.values.copy_(state["vector"])
        stored = {name.removeprefix("buffer."): tensor for name, tensor in state.items() if name != "vector"}
        self.buffers = {name: tensor.to(self.vector.device, copy=True) for name, tensor in stored.items()}
        self.updates = updates
