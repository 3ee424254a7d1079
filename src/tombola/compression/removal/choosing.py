"""Which units are to go: the lowest by a criterion, in every group as many or where they are worth least."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.compression.removal.groups import Group, Grouped, Indexed, Unit
from tombola.errors import PruningError, counted
from tombola.pruning.criteria import Criterion, Loss, Scores, ScoringContext, checked_batches, make_criterion
from tombola.pruning.distributions import LayerUnits, make_distribution
from tombola.pruning.masks import Masks
from tombola.pruning.protect import protected_names
from tombola.pruning.prunable import prunable_parameters
from tombola.pruning.selection import lowest
from tombola.pruning.surroundings import surroundings_kept

RANKINGS = {"group": "uniform", "global": "global"}
"""How a target spreads: every group loses the same fraction, or all units compete. By the distribution that does it."""


@dataclass(frozen=True)
class Choice:
    """What is asked of a plan, all but the model."""

    sparsity: float
    criterion: str | Criterion = "magnitude"
    ranking: str = "group"
    round_to: int = 1
    protect: Sequence[str] = ()
    batches: Iterable[Any] | None = None
    loss: Loss = functional.cross_entropy
    seed: int = 0

    def __post_init__(self) -> None:
        number = isinstance(self.sparsity, (int, float)) and not isinstance(self.sparsity, bool)
        if not number or not 0 <= self.sparsity < 1:
            raise PruningError(f"sparsity is the fraction of units to remove, in [0, 1), not {self.sparsity!r}")
        if self.ranking not in RANKINGS:
            raise PruningError(f"a ranking is one of {', '.join(RANKINGS)}, not {self.ranking!r}")
        if isinstance(self.round_to, bool) or not isinstance(self.round_to, int) or self.round_to < 1:
            raise PruningError(f"round_to is a whole number of units, 1 or more, not {self.round_to!r}")


def choose(model: nn.Module, grouped: Grouped, choice: Choice, masks: Masks | None) -> list[Unit]:
    """The units that go: `round(sparsity · N)` of the N that can, fewer where `round_to` makes more of a group stay."""
    groups = unprotected(model, grouped, choice.protect)
    if not groups:
        raise PruningError(f"no unit of the model can be removed{_reasons(grouped)}")
    scores = _unit_scores(model, groups, choice, masks)
    layers = [
        LayerUnits(group.name, score, torch.ones(len(score), dtype=torch.bool), torch.Size([len(score), 1]))
        for group, score in zip(groups, scores, strict=True)
    ]
    counts = make_distribution(RANKINGS[choice.ranking])(layers, choice.sparsity, 1)
    gone: list[Unit] = []
    for group, score, count in zip(groups, scores, counts, strict=True):
        going = lowest(score, _rounded(count, len(score), choice.round_to))
        gone += [unit for unit, goes in zip(group.units, going.tolist(), strict=True) if goes]
    return gone


def unprotected(
    model: nn.Module, grouped: Grouped, protect: Sequence[str], wanted: Callable[[Unit], bool] = lambda unit: True
) -> list[Group]:
    """The groups that can lose units and that no protected layer is part of.

    PruningError naming an unknown operation that `wanted` units meet, unless one of their layers is protected.
    """
    every = [name for name, _ in model.named_parameters()]
    protected = protected_names(every, protect)
    for group in grouped.bound:
        unknown = next((u.lock for u in group.units if u.lock is not None and u.lock.unknown and wanted(u)), None)
        if unknown is not None and group.writers and not _meets(group, protected):
            raise PruningError(
                f"{group.name}: {counted(len(group.units), 'unit')} cannot be removed: {unknown.reason} meets them; "
                f"protect the layer to leave it as it is: protect=[{group.name.split(', ')[0]!r}]"
            )
    return [group for group in grouped.free if not _meets(group, protected)]


def _meets(group: Group, protected: set[str]) -> bool:
    return any(tensor in protected for tensor, _ in group.units[0].places)


def _reasons(grouped: Grouped) -> str:
    locks = {unit.lock.reason for group in grouped.bound for unit in group.units if unit.lock is not None}
    return f": {'; '.join(sorted(locks)[:3])}" if locks else ": it has no layer whose outputs another layer reads"


def _rounded(count: int, total: int, round_to: int) -> int:
    """How many go, so that what stays is a multiple; a group that is none already may stay as it is."""
    stays = total - count
    up = -(-stays // round_to) * round_to
    return total - up if up <= total else 0


def _unit_scores(model: nn.Module, groups: Sequence[Group], choice: Choice, masks: Masks | None) -> list[Tensor]:
    """Of every unit the mean over the weights that compute it, in all of its layers."""
    criterion = make_criterion(choice.criterion)
    batches = checked_batches(choice.batches)
    names_ = frozenset(prunable_parameters(model))
    context = ScoringContext(choice.seed, batches, choice.loss, masks, names_)
    with surroundings_kept():
        scores = criterion(model, replace(context, sum_over_units=_sums(groups)))
    return [_pooled(group, scores) for group in groups]


def _sums(groups: Sequence[Group]) -> Any:
    """Every weight has the sum over what one layer computes of its unit, for criteria of joint effects."""
    units: dict[str, tuple[int, list[Any]]] = {}
    for group in groups:
        for tensor, dim in group.writers:
            units.setdefault(tensor, (dim, []))[1].extend(unit.places[tensor, dim] for unit in group.units)

    def sum_over_units(name: str, tensor: Tensor) -> Tensor:
        if name not in units:
            return tensor
        dim, indices = units[name]
        moved = tensor.movedim(dim, 0)
        made = moved.flatten(1).sum(1)
        for index in indices:
            made[index] = made[index].sum()
        return made.view(-1, *[1] * (moved.dim() - 1)).expand_as(moved).movedim(0, dim)

    return sum_over_units


def _pooled(group: Group, scores: Scores) -> Tensor:
    totals, counts = np.zeros(len(group.units)), np.zeros(len(group.units))
    for tensor, dim in group.writers:
        if tensor not in scores:
            continue
        score = scores[tensor].detach().double().cpu().movedim(dim, 0).flatten(1)
        sums = score.sum(1).numpy()
        for number, unit in enumerate(group.units):
            index = unit.places[tensor, dim]
            totals[number] += sums[index].sum()
            counts[number] += len(index) * score.shape[1]
    if not counts.all():
        raise PruningError(f"{group.name}: the criterion gave no scores for these layers; protect them")
    pooled = torch.from_numpy(totals / counts)
    if bool(pooled.isnan().any()):
        raise PruningError(f"{group.name}: the criterion gave NaN scores")
    return pooled


def silence(model: nn.Module, gone: Indexed, grouped: Grouped) -> None:
    """Sets the weights that read removed units to 0, in place: what the smaller model is compared with."""
    tensors = dict(model.named_parameters())
    with torch.no_grad():
        for (tensor, dim), indices in gone.items():
            if (tensor, dim) in grouped.readers:
                index = torch.from_numpy(indices).to(tensors[tensor].device)
                tensors[tensor].index_fill_(dim, index, 0.0)
