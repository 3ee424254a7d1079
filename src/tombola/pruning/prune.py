"""`prune`: the verb. Score, pool to units, share the target over layers, remove the lowest; nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import PruningError
from tombola.pruning.budgets import Budget, LayerUnits, make_budget
from tombola.pruning.criteria import Criterion, Scores, ScoringContext, criteria
from tombola.pruning.masks import Masks
from tombola.pruning.prunable import prunable_parameters
from tombola.pruning.selection import lowest
from tombola.pruning.structures import Structure, structures


def prune(
    model: nn.Module,
    sparsity: float | None = None,
    criterion: str | Criterion = "magnitude",
    structure: str | Structure = "weight",
    budget: str | Budget = "global",
    masks: Masks | None = None,
    batches: Iterable[Any] | None = None,
    *,
    min_keep: int = 1,
    seed: int = 0,
) -> Masks:
    """Masks that remove exactly `round(sparsity * N)` of the model's N units. The model is not changed.

    `sparsity` is the total target in [0, 1), earlier `masks` included; what they removed stays removed and is
    never ranked again. The budget `PerLayerRates` takes no sparsity. Units go in the order of a stable sort
    of their scores: ties by position. Every layer keeps at least `min_keep` units, and the rest of the
    budget moves to other layers so that the total stays exact. `seed` feeds criteria that use chance.

    Raises PruningError for a target that cannot be met (naming the layer), for NaN or infinite weights or
    scores, for a model without prunable weights and for masks of another model.
    """
    _check_arguments(sparsity, min_keep)
    parameters = prunable_parameters(model)
    for name, parameter in parameters.items():
        if not bool(torch.isfinite(parameter.detach()).all()):
            raise PruningError(f"{name} holds NaN or infinite weights: the model is broken, train it again")
    if masks is None:
        masks = Masks.full(model)
    masks.parameters_of(model)  # refuses masks of another model
    score = criteria.get(criterion) if isinstance(criterion, str) else criterion
    unit = structures.get(structure) if isinstance(structure, str) else structure
    scores = score(model, ScoringContext(seed=seed, batches=batches))
    _check_scores(scores, parameters)
    layers = [LayerUnits(name, unit.pool(scores[name]), unit.alive(mask.keep)) for name, mask in masks.items()]
    counts = make_budget(budget)(layers, sparsity, min_keep)
    kept = {
        layer.name: unit.spread(_surviving_units(layer, count), masks[layer.name].shape)
        for layer, count in zip(layers, counts, strict=True)
    }
    return Masks.from_tensors(kept) & masks


def _surviving_units(layer: LayerUnits, count: int) -> Tensor:
    """The layer's live units without the `count` lowest of them."""
    positions = layer.alive.nonzero().flatten()
    survivors = layer.alive.clone()
    survivors[positions[lowest(layer.scores[positions], count)]] = False
    return survivors


def _check_arguments(sparsity: float | None, min_keep: int) -> None:
    if sparsity is not None:
        number = isinstance(sparsity, int | float) and not isinstance(sparsity, bool)
        if not number or not 0 <= sparsity < 1:
            raise PruningError(f"sparsity is the share of weights to remove, in [0, 1), not {sparsity!r}")
    if isinstance(min_keep, bool) or not isinstance(min_keep, int) or min_keep < 0:
        raise PruningError(f"min_keep is a number of units per layer, not {min_keep!r}")


def _check_scores(scores: Scores, parameters: dict[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        if name not in scores or scores[name].shape != parameter.shape:
            raise PruningError(f"{name}: the criterion gave no score tensor of shape {tuple(parameter.shape)}")
        if bool(torch.isnan(scores[name]).any()):
            raise PruningError(f"{name}: the criterion gave NaN scores")
