"""A small network, its batches and its gradients, computed in the plainest way."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.pruning import criteria, prunable_parameters
from tombola.pruning.criteria import Scores, ScoringContext

Batches = list[tuple[Tensor, Tensor]]


def mlp(*widths: int, bias: bool = True, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths or (4, 5, 3)):
        layers += [nn.Linear(before, after, bias=bias), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).double()


def batches(count: int = 3, size: int = 4, features: int = 4, classes: int = 3, seed: int = 1) -> Batches:
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, features, generator=generator, dtype=torch.float64),
            torch.randint(classes, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def score(name: str, model: nn.Module, data: Iterable[Any] | None = None, **options: Any) -> Scores:
    return criteria.get(name)(model, ScoringContext(batches=data, **options))


def assert_scores(found: Scores, expected: Scores, **tolerance: float) -> None:
    assert list(found) == list(expected)
    for name, scores in found.items():
        torch.testing.assert_close(scores, expected[name], check_dtype=False, **tolerance)


def assert_one_line(error: BaseException) -> None:
    """The promise of every error: one line for a person."""
    assert str(error).strip()
    assert "\n" not in str(error)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in prunable_parameters(model).items()}


def gradients_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Scores:
    parameters = prunable_parameters(model)
    loss = functional.cross_entropy(model(inputs), targets)
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


def gradient_of_all(model: nn.Module, data: Batches) -> Scores:
    """Batches are of one size here, so the mean of their losses is the loss of all examples."""
    return gradients_of(model, torch.cat([x for x, _ in data]), torch.cat([y for _, y in data]))
