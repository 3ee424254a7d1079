"""Criteria: what a weight is worth. A higher score means worth keeping.

A criterion is a function of the model and a `ScoringContext` that returns one score tensor per prunable
parameter, of the parameter's shape. Adding one is the function and its `register` line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tombola.pruning.prunable import prunable_parameters
from tombola.registry import Registry

Scores = dict[str, Tensor]


@dataclass(frozen=True)
class ScoringContext:
    """What a criterion may use beside the model: batches of data, and the seed of its chance."""

    seed: int = 0
    batches: Iterable[Any] | None = None


Criterion = Callable[[nn.Module, ScoringContext], Scores]
criteria: Registry[Criterion] = Registry("criterion")


@criteria.register("magnitude")
def magnitude(model: nn.Module, context: ScoringContext) -> Scores:
    """|w|. Han et al. 2015 (arXiv 1506.02626); the criterion of Frankle & Carbin 2019 (arXiv 1803.03635)."""
    return {name: p.detach().abs() for name, p in prunable_parameters(model).items()}


@criteria.register("random")
def random(model: nn.Module, context: ScoringContext) -> Scores:
    """Independent uniform scores from the context's seed: the baseline that every criterion must beat."""
    generator = torch.Generator().manual_seed(context.seed)
    return {
        name: torch.rand(p.shape, generator=generator).to(p.device) for name, p in prunable_parameters(model).items()
    }
