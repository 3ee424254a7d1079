"""Models as somebody's own code makes them, for `package.module:function`: every one takes digits, 1×8×8 pixels."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn


def normalised_first() -> nn.Module:
    """Its first layer has neither `in_features` nor `in_channels`."""
    return nn.Sequential(
        nn.BatchNorm2d(1), nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 10)
    )


def dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def constant() -> nn.Module:
    """Without any chance."""
    model = dense()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.01)
    return model


class Tiring(nn.Module):
    """Gives other outputs the more often it was called while it trained, and no file knows how often."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
        return self.layer(inputs.flatten(1)) * (1 + 0.01 * self.seen)


def fixed_trunk() -> nn.Module:
    """As one that was trained before: only its head is drawn."""
    model = dense()
    nn.init.constant_(model[1].weight, 0.01)
    return model


def by_numpy() -> nn.Module:
    model = dense()
    with torch.no_grad():
        model[1].weight.copy_(torch.from_numpy(np.random.default_rng().normal(size=(16, 64))))
    return model


def too_few() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))


def lazy_dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(2))


def zero_head() -> nn.Module:
    model = dense()
    nn.init.zeros_(model[-1].weight)
    return model


class Tied(nn.Module):
    """Two layers of one weight, and something on the way that only works with values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.second.weight = self.first.weight
        self.scale = torch.ones(64)  # no buffer: it stays behind when the model moves to another device

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu(self.first(inputs.flatten(1))) * self.scale
        return self.head(torch.relu(self.second(hidden)))


def tied() -> nn.Module:
    return Tied()


class Auxiliary(nn.Module):
    """A second head that is asked while the model trains; its answer's kind is chosen."""

    def __init__(self, kind: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.body, self.head, self.aux = nn.Linear(64, 16), nn.Linear(16, 10), nn.Linear(16, 10)
        self.kind = kind

    def forward(self, inputs: Tensor) -> Any:
        hidden = torch.relu(self.body(inputs.flatten(1)))
        return self.kind(self.head(hidden), self.aux(hidden)) if self.training else self.head(hidden)


def of_tuples() -> nn.Module:
    return Auxiliary(lambda logits, aux: (logits, aux))


def of_mappings() -> nn.Module:
    return Auxiliary(lambda logits, aux: {"out": logits, "aux": aux})


def of_text() -> nn.Module:
    return Auxiliary(lambda logits, aux: "no logits")


class Counting(nn.Module):
    """Counts its passes in a buffer, and has a layer without weights."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.empty = nn.Linear(64, 16), nn.Linear(16, 10), nn.Linear(0, 10)
        self.register_buffer("passes", torch.tensor(0))

    def forward(self, inputs: Tensor) -> Tensor:
        self.passes += 1
        inputs = inputs.flatten(1)
        self.last = torch.relu(self.body(inputs))
        return self.head(self.last) + self.empty(inputs[:, :0])


def counting() -> nn.Module:
    return Counting()


def of_nan() -> nn.Module:
    return _with_one(float("nan"))


def of_infinity() -> nn.Module:
    return _with_one(float("inf"))


def of_huge() -> nn.Module:
    """Finite weights whose logits are not."""
    model = dense()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 1e30)
    return model


def without_weights() -> nn.Module:
    return nn.Flatten()


def of_two_classes() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


def of_other_inputs() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(100, 10))


def talkative() -> nn.Module:
    print("a word from the function")
    return dense()


def no_module() -> int:
    return 3


def failing() -> NoReturn:
    raise RuntimeError("no such\nmodel today")


def leaving() -> NoReturn:
    sys.exit(0)


def with_argument(width: int) -> nn.Module:
    return nn.Linear(64, width)


def _with_one(value: float) -> nn.Module:
    model = dense()
    with torch.no_grad():
        model[1].weight[3, 5] = value
    return model
