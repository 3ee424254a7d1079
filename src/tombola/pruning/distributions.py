"""Distributions: how a target is spread over layers.

A distribution sees the units of every layer (scores, and which are alive) and says how many live units each layer
loses now. Which ones is not its business: the lowest scores go, ties by position. `PerOutput` alone has a word in that:
it turns a layer's scores into ranks among the weights of an output.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from tombola.errors import PruningError
from tombola.pruning.protect import names
from tombola.pruning.prunable import Layout
from tombola.pruning.scalars import plain
from tombola.pruning.selection import Pool, apportion, lowest_of
from tombola.registry import Registry


@dataclass(frozen=True)
class LayerUnits:
    """The units of one layer: `scores` 1-D, `alive` 1-D boolean, both of the layer's number of units.

    `shape` is that of the weight, of one expert's where it holds several. A protected layer loses nothing; its units
    count in the total all the same.
    """

    name: str
    scores: Tensor
    alive: Tensor
    shape: torch.Size
    protected: bool = False

    @property
    def total(self) -> int:
        return self.alive.numel()

    @functools.cached_property
    def alive_count(self) -> int:
        return int(self.alive.count_nonzero())

    def room(self, min_keep: int) -> int:
        """How many units may go."""
        return 0 if self.protected else max(0, self.alive_count - min_keep)

    @property
    def pool(self) -> Pool:
        """The scores of the live units."""
        return Pool(self.scores, None if self.alive_count == self.total else self.alive)


Distribution = Callable[[Sequence[LayerUnits], float | None, int], list[int]]
"""(layers, sparsity, min_keep) -> how many live units each layer loses now."""

distributions: Registry[Callable[..., Distribution]] = Registry("distribution")


@distributions.register("global")
def global_distribution() -> Distribution:
    """All live units of all layers compete in one ranking; each layer's best `min_keep` are not in it."""

    def share(layers: Sequence[LayerUnits], sparsity: float | None, min_keep: int) -> list[int]:
        count = _units_to_remove(layers, sparsity, min_keep)
        room = [layer.room(min_keep) for layer in layers]
        removed = {index: 0 for index, free in enumerate(room) if not free}
        while True:
            competing = [index for index in range(len(layers)) if index not in removed]
            counts = lowest_of([layers[index].pool for index in competing], count - sum(removed.values()))
            # A layer that would lose more than it may gives what it can, and the others compete for the rest.
            emptied = {i: room[i] for i, lost in zip(competing, counts, strict=True) if lost > room[i]}
            if not emptied:
                removed |= dict(zip(competing, counts, strict=True))
                return [removed[index] for index in range(len(layers))]
            removed |= emptied

    return share


@distributions.register("uniform")
def uniform_distribution() -> Distribution:
    """Every layer ends at the same sparsity; the total is shared by largest remainder, to the unit."""

    def share(layers: Sequence[LayerUnits], sparsity: float | None, min_keep: int) -> list[int]:
        count = _units_to_remove(layers, sparsity, min_keep)
        gone = [layer.total - layer.alive_count for layer in layers]
        upper = [g + layer.room(min_keep) for g, layer in zip(gone, layers, strict=True)]
        ends = apportion(count + sum(gone), [layer.total for layer in layers], gone, upper)
        return [end - g for end, g in zip(ends, gone, strict=True)]

    return share


@distributions.register("erk")
def erdos_renyi_kernel_distribution() -> Distribution:
    """Density in proportion to the sum of a weight's dimensions over their product, so that small layers stay denser.

    Erdős-Rényi-Kernel: Mocanu et al. 2018 (arXiv 1707.04780), for kernels Evci et al. 2020 (arXiv 1911.11134).
    A layer that would be more than dense stays dense and the others share the rest.
    """

    def share(layers: Sequence[LayerUnits], sparsity: float | None, min_keep: int) -> list[int]:
        count = _units_to_remove(layers, sparsity, min_keep)
        alive = [layer.alive_count for layer in layers]
        least = [a - layer.room(min_keep) for a, layer in zip(alive, layers, strict=True)]
        weights = [Fraction(sum(layer.shape) * layer.total, layer.shape.numel()) for layer in layers]
        kept = apportion(sum(alive) - count, weights, least, alive)
        return [a - k for a, k in zip(alive, kept, strict=True)]

    return share


@distributions.register("per-output")
class PerOutput:
    """Every layer ends at the same sparsity, and so does every output of a layer: only weights of one output compete.

    The comparison group of Wanda, Sun et al. 2024 (arXiv 2306.11695, section 3). What does not divide goes by position:
    outputs of a layer differ by one kept weight at most. For the structure `weight`.
    """

    def __call__(self, layers: Sequence[LayerUnits], sparsity: float | None, min_keep: int) -> list[int]:
        return uniform_distribution()(layers, sparsity, min_keep)

    def ranks(self, scores: Tensor, keep: Tensor, layout: Layout) -> Tensor:
        """Scores, 1-D, in whose order the weights of a layer go: the best of an output has -1, the next best -2, ...

        So outputs that keep most lose first, and all end alike. `scores` are 1-D in the weight's own order, `keep` is
        of the layout's shape.
        """
        rows = layout.canonical(scores.view(layout.shape)).flatten(0, 1).flatten(1)
        kept = layout.canonical(keep).flatten(0, 1).flatten(1)
        # Worst first within an output, ties by position; what is gone already comes before all.
        by_score = rows.argsort(dim=1, stable=True)
        order = by_score.gather(1, kept.gather(1, by_score).byte().argsort(dim=1, stable=True))
        places = torch.arange(rows.shape[1], device=rows.device, dtype=torch.float64).expand_as(order)
        ranks = torch.empty_like(places).scatter_(1, order, places - rows.shape[1])
        shape = (layout.groups, layout.outputs, layout.inputs, layout.kernel_positions)
        return layout.original(ranks.view(shape)).reshape(-1)


@distributions.register("rates")
class PerLayerRates:
    """Each layer loses a fixed fraction of its *surviving* units, as in Frankle & Carbin 2019 (20 %, output 10 %).

    `rate` holds for every layer, `layers` overrides it by layer name ("output", or "output.weight"). Takes
    no global sparsity: the rates are the target.
    """

    def __init__(self, rate: float, layers: Mapping[str, float] | None = None) -> None:
        self.rate: float = plain(rate)
        self.layers: dict[str, float] = {name: plain(value) for name, value in dict(layers or {}).items()}
        for name, value in (("rate", self.rate), *self.layers.items()):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise PruningError(f"prune rate of {name!r} must be in [0, 1), not {value!r}")

    def __call__(self, layers: Sequence[LayerUnits], sparsity: float | None, min_keep: int) -> list[int]:
        if sparsity is not None:
            raise PruningError("per-layer rates take no sparsity: leave it out, or use another distribution")
        removed = []
        alive = {layer.name: layer.alive_count for layer in layers}
        for layer, (name, count) in zip(layers, self.counts(alive).items(), strict=True):
            count = 0 if layer.protected else count
            if count and alive[name] - count < min_keep:
                raise PruningError(
                    f"{name}: removing {count} of {alive[name]} units would leave fewer than "
                    f"min_keep={min_keep}; lower its rate"
                )
            removed.append(count)
        return removed

    def counts(self, alive: Mapping[str, int]) -> dict[str, int]:
        """How many units each layer loses when it has `alive` ones left, by parameter name."""
        unknown = [name for name in self.layers if not any(names(name, key) for key in alive)]
        if unknown:
            raise PruningError(f"no layer is called {unknown[0]!r}; layers: {', '.join(alive)}")
        return {key: round(self._rate_of(key) * count) for key, count in alive.items()}

    def _rate_of(self, parameter: str) -> float:
        return next((r for name, r in self.layers.items() if names(name, parameter)), self.rate)


def _units_to_remove(layers: Sequence[LayerUnits], sparsity: float | None, min_keep: int) -> int:
    """How many live units must go now so that exactly round(sparsity · N) of all N units are gone."""
    if sparsity is None:
        raise PruningError("this distribution needs a sparsity, for example prune(model, 0.9)")
    total = sum(layer.total for layer in layers)
    alive = sum(layer.alive_count for layer in layers)
    target = round(sparsity * total)
    count = target - (total - alive)
    if count < 0:
        raise PruningError(
            f"sparsity {sparsity:g} asks for {target} of {total} units removed, but {total - alive} are removed "
            "already; removed units never come back"
        )
    room = sum(layer.room(min_keep) for layer in layers)
    if count > room:
        raise PruningError(
            f"sparsity {sparsity:g} would remove {count} units, but only {room} can go while each layer keeps "
            f"min_keep={min_keep}{_and_protected(layers)}; the layers "
            f"{', '.join(layer.name for layer in layers if not layer.protected)} would die; ask for at most "
            f"{math.floor(1e4 * (total - alive + room) / total) / 1e4:g}"
        )
    return count


def _and_protected(layers: Sequence[LayerUnits]) -> str:
    held = sum(layer.alive_count for layer in layers if layer.protected)
    return f" and protected layers their {held}" if held else ""


def make_distribution(distribution: str | Distribution) -> Distribution:
    """A distribution from its name: a registered one or `rates:0.2,output=0.1`; or the distribution object itself."""
    if not isinstance(distribution, str):
        if not callable(distribution):
            raise PruningError(f"a distribution is a name or a Distribution, not {distribution!r}")
        return distribution
    name, colon, rates = distribution.partition(":")
    if name == "rates":
        return _rates_from(rates)
    if colon:
        raise PruningError(f"distribution {distribution!r}: only `rates` takes numbers, as in rates:0.2,output=0.1")
    factory: Any = distributions.get(distribution)
    made: Distribution = factory()
    return made


def _rates_from(text: str) -> PerLayerRates:
    first, *others = text.split(",")
    try:
        layers = {layer.strip(): float(rate) for layer, _, rate in (entry.rpartition("=") for entry in others)}
        rate = float(first)
    except ValueError:
        raise PruningError(
            "the distribution 'rates' needs rates: rates:0.2,output=0.1 removes 20 % of each layer's survivors and "
            "10 % of the layer `output`'s; in Python distribution=PerLayerRates(0.2, {'output': 0.1})"
        ) from None
    return PerLayerRates(rate, layers)
