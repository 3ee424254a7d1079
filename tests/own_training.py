"""Optimizers, schedules and losses as somebody's own code has them, for `package.module:function`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Named = list[tuple[str, nn.Parameter]]


def rmsprop(parameters: Named, learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(parameters, lr=learning_rate, momentum=0.5)


def nadam(parameters: Named, learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.NAdam(parameters, lr=learning_rate)


gentle = functools.partial(rmsprop)
smoothing = nn.CrossEntropyLoss(label_smoothing=0.1)


def two_rates(parameters: Named, learning_rate: float) -> torch.optim.Optimizer:
    """The last layer learns at a tenth of the rate of the others."""
    groups = [{"params": parameters[:-2]}, {"params": parameters[-2:], "lr": learning_rate / 10}]
    return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True)


class Odd(torch.optim.Optimizer):
    """Momentum that counts in Python's numbers, and makes a number of a group smaller as it goes."""

    def __init__(self, parameters: Iterable[Any], lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "damping": 1.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["damping"] *= 0.99
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state |= {"step": 0, "moving": torch.zeros_like(parameter), "last": None, "seen": 0.0}
                state["step"] += 1
                state["seen"] += 0.5
                state["moving"].lerp_(parameter.grad, 0.1)
                parameter.add_(state["moving"], alpha=-group["lr"] * group["damping"] * (1 + 1 / state["step"]))


def odd(parameters: Named, learning_rate: float) -> torch.optim.Optimizer:
    return Odd(parameters, learning_rate)


class Drifting(torch.optim.Optimizer):
    """Changes a tensor of a group in place, and keeps beside its state what never changes, or is the model's."""

    def __init__(self, parameters: Named, lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "scale": torch.ones(())})
        self._parameters, self._names = [parameter for _, parameter in parameters], {name for name, _ in parameters}
        self._table, self._rule, self._kind = {"a": [torch.ones(2), None, float("nan")]}, falling, torch.float32

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["scale"].mul_(0.99)
        for parameter in self._parameters:
            parameter.sub_(parameter.grad * group["scale"], alpha=group["lr"])


def drifting(parameters: Named, learning_rate: float) -> torch.optim.Optimizer:
    return Drifting(parameters, 10 * learning_rate)


def fused(parameters: Named, learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=10 * learning_rate, momentum=0.5, fused=True)


class Changed(torch.optim.Optimizer):
    """Does to every parameter what `change` says."""

    def __init__(self, parameters: Iterable[Any], change: Callable[[Changed, nn.Parameter], None]) -> None:
        super().__init__(parameters, {"lr": 0.1})
        self.change, self.count = change, 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                self.change(self, parameter)


def falling(iteration: int, total: int) -> float:
    return 1 - iteration / total


def below(highest: float, iteration: int, total: int) -> float:
    return min(highest, falling(iteration, total))


def smoothed(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits, targets, label_smoothing=0.1)


def steep(logits: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy in a unit of its owner's."""
    return 100 * functional.cross_entropy(logits, targets)
