"""What comes of a removal: the smaller model, the record, and what had to stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tombola.compression.removal.groups import Grouped, Unit, places_of
from tombola.models.removed import Removal, cut
from tombola.pruning.mask import Mask
from tombola.pruning.masks import Masks


@dataclass(frozen=True)
class GroupChange:
    """Units that lie in the same layers: how many there were and are."""

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class Stayed:
    """Units that masks remove somewhere and that are still there: which, how many, why."""

    name: str
    units: int
    reason: str


@dataclass(frozen=True)
class Removed:
    """A smaller model and what went.

    `masks` are those of the smaller model. `removal` does the same to a fresh model (`tombola.models.removed.shrink`).
    `error` is the largest difference from the masked model's outputs, as a fraction of the largest output.
    """

    model: nn.Module
    masks: Masks
    removal: Removal
    groups: tuple[GroupChange, ...]
    stayed: tuple[Stayed, ...]
    parameters_before: int
    parameters_after: int
    error: float


def cut_masks(masks: Masks, removal: Removal) -> Masks:
    """The masks of the smaller model, of those that it had before."""
    dims = removal.by_tensor()
    return Masks({name: Mask(cut(mask.keep, dims.get(name, {}))) for name, mask in masks.items()})


def removal_of(grouped: Grouped, gone: Sequence[Unit]) -> Removal:
    """The record: what stays of every dimension that loses something."""
    kept = {}
    for place, indices in places_of(gone).items():
        stays = torch.ones(grouped.sizes[place], dtype=torch.bool)
        stays[torch.from_numpy(indices)] = False
        kept[place] = stays.nonzero().flatten()
    return Removal.of(kept, grouped.sizes)


def changes(grouped: Grouped, gone: Sequence[Unit]) -> tuple[GroupChange, ...]:
    """Units of every group before and after."""
    labels = {unit.label for unit in gone}
    lost = Counter({group.name: 0 for group in grouped.free})
    before: Counter[str] = Counter()
    for group in grouped.free:
        before[group.name] += len(group.units)
        lost[group.name] += sum(unit.label in labels for unit in group.units)
    return tuple(GroupChange(name, count, count - lost[name]) for name, count in before.items())
