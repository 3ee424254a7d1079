"""Counting units: how many of a structure's units masks remove, layer by layer, in whole numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import nn

from tombola.errors import PruningError
from tombola.pruning.masks import Masks
from tombola.pruning.prunable import Layout, weight_layouts
from tombola.pruning.structures import Structure


@dataclass(frozen=True)
class UnitCount:
    """Units of a layer, and how many of them are gone."""

    removed: int
    total: int


def layers_with_units(model: nn.Module, structure: Structure) -> dict[str, Layout]:
    """The layers that have units of `structure`; those whose shape does not divide have none."""
    return {
        name: layout
        for name, layout in weight_layouts(model).items()
        if layout.shape.numel() and structure.fits(layout) and divides(structure, layout)
    }


def count_units(model: nn.Module, masks: Masks, structure: Structure) -> dict[str, UnitCount]:
    """The units of every layer that has some, by the name of its weight."""
    counts = {}
    for name, layout in layers_with_units(model, structure).items():
        alive = structure.alive(masks[name].keep, layout)
        counts[name] = UnitCount(alive.numel() - int(alive.count_nonzero()), alive.numel())
    return counts


def fraction_removed(counts: Mapping[str, UnitCount]) -> float:
    """The fraction of all units that is gone; 0 where there are none."""
    total = sum(count.total for count in counts.values())
    return sum(count.removed for count in counts.values()) / total if total else 0.0


def fraction_of_all(sparsity: float, counts: Mapping[str, UnitCount], spared: Collection[str]) -> float:
    """`sparsity` of the units outside the `spared` layers, as a fraction of all units, which is what `prune` goes by.

    It is one of whole units, so that rounding it again gives the same number.
    """
    total = sum(count.total for count in counts.values())
    counted = sum(count.total for name, count in counts.items() if name not in spared)
    gone_elsewhere = sum(count.removed for name, count in counts.items() if name in spared)
    return (round(sparsity * counted) + gone_elsewhere) / total if total else sparsity


def divides(structure: Structure, layout: Layout) -> bool:
    """Whether a layer that `structure` fits divides into its units."""
    try:
        structure.check(layout)
    except PruningError:
        return False
    return True
