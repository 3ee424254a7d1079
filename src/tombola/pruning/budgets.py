"""Budgets: how a target is spread over layers.

A budget sees the units of every layer (scores, and which are alive) and says how many live units each layer
loses now. Which ones is not its business: the lowest scores go, ties by position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tombola.errors import PruningError
from tombola.pruning.selection import apportion, lowest
from tombola.registry import Registry


@dataclass(frozen=True)
class LayerUnits:
    """The units of one layer: `scores` 1-D, `alive` 1-D boolean, both of the layer's number of units."""

    name: str
    scores: Tensor
    alive: Tensor

    @property
    def total(self) -> int:
        return self.alive.numel()

    @property
    def alive_count(self) -> int:
        return int(self.alive.sum())


Budget = Callable[[Sequence[LayerUnits], float | None, int], list[int]]
"""(layers, sparsity, min_keep) -> how many live units each layer loses now."""

budgets: Registry[Callable[..., Budget]] = Registry("budget")


@budgets.register("global")
def global_budget() -> Budget:
    """All live units of all layers compete in one ranking; each layer's best `min_keep` are not in it."""

    def share(layers: Sequence[LayerUnits], sparsity: float | None, min_keep: int) -> list[int]:
        count = _units_to_remove(layers, sparsity, min_keep)
        open_to_removal = [_removable(layer, min_keep) for layer in layers]
        candidates = torch.cat([layer.scores[o] for layer, o in zip(layers, open_to_removal, strict=True)])
        chosen = lowest(candidates, count)
        sizes = [int(o.sum()) for o in open_to_removal]
        return [int(part.sum()) for part in chosen.split(sizes)]

    return share


@budgets.register("uniform")
def uniform_budget() -> Budget:
    """Every layer ends at the same sparsity; the total is shared by largest remainder, to the unit."""

    def share(layers: Sequence[LayerUnits], sparsity: float | None, min_keep: int) -> list[int]:
        count = _units_to_remove(layers, sparsity, min_keep)
        gone = [layer.total - layer.alive_count for layer in layers]
        room = [max(0, layer.alive_count - min_keep) for layer in layers]
        upper = [g + r for g, r in zip(gone, room, strict=True)]
        ends = apportion(count + sum(gone), [layer.total for layer in layers], gone, upper)
        return [end - g for end, g in zip(ends, gone, strict=True)]

    return share


@budgets.register("rates")
class PerLayerRates:
    """Each layer loses a fixed share of its *surviving* units, as in Frankle & Carbin 2019 (20 %, output 10 %).

    `rate` holds for every layer, `layers` overrides it by layer name ("output", or "output.weight"). Takes
    no global sparsity: the rates are the target.
    """

    def __init__(self, rate: float, layers: Mapping[str, float] | None = None) -> None:
        self.rate = rate
        self.layers = dict(layers or {})
        for name, value in (("rate", rate), *self.layers.items()):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise PruningError(f"prune rate of {name!r} must be in [0, 1), not {value!r}")

    def __call__(self, layers: Sequence[LayerUnits], sparsity: float | None, min_keep: int) -> list[int]:
        if sparsity is not None:
            raise PruningError("per-layer rates take no sparsity: leave it out, or use another budget")
        removed = []
        alive = {layer.name: layer.alive_count for layer in layers}
        for name, count in self.counts(alive).items():
            if count and alive[name] - count < min_keep:
                raise PruningError(
                    f"{name}: removing {count} of {alive[name]} units would leave fewer than "
                    f"min_keep={min_keep}; lower its rate"
                )
            removed.append(count)
        return removed

    def counts(self, alive: Mapping[str, int]) -> dict[str, int]:
        """How many units each layer loses when it has `alive` ones left, by parameter name."""
        unknown = [name for name in self.layers if not any(_names(name, key) for key in alive)]
        if unknown:
            raise PruningError(f"no layer is called {unknown[0]!r}; layers: {', '.join(alive)}")
        return {key: round(self._rate_of(key) * count) for key, count in alive.items()}

    def _rate_of(self, parameter: str) -> float:
        return next((r for name, r in self.layers.items() if _names(name, parameter)), self.rate)


def _names(layer: str, parameter: str) -> bool:
    return parameter in (layer, f"{layer}.weight")


def _removable(layer: LayerUnits, min_keep: int) -> Tensor:
    """The live units that may go: all but the `min_keep` that would go last."""
    protected = min(min_keep, layer.alive_count)
    positions = layer.alive.nonzero().flatten()
    open_to_removal = torch.zeros_like(layer.alive)
    count = layer.alive_count - protected
    open_to_removal[positions[lowest(layer.scores[positions], count)]] = True
    return open_to_removal


def _units_to_remove(layers: Sequence[LayerUnits], sparsity: float | None, min_keep: int) -> int:
    """How many live units must go now so that exactly round(sparsity · N) of all N units are gone."""
    if sparsity is None:
        raise PruningError("this budget needs a sparsity, for example prune(model, 0.9)")
    total = sum(layer.total for layer in layers)
    alive = sum(layer.alive_count for layer in layers)
    target = round(sparsity * total)
    count = target - (total - alive)
    if count < 0:
        raise PruningError(
            f"sparsity {sparsity:g} asks for {target} of {total} units removed, but {total - alive} are removed "
            "already; removed units never come back"
        )
    room = sum(max(0, layer.alive_count - min_keep) for layer in layers)
    if count > room:
        names = ", ".join(layer.name for layer in layers)
        raise PruningError(
            f"sparsity {sparsity:g} would remove {count} units, but only {room} can go while each layer keeps "
            f"min_keep={min_keep}; the layers {names} would die"
        )
    return count


def make_budget(budget: str | Budget) -> Budget:
    """A budget from its registered name, or the budget object itself."""
    if not isinstance(budget, str):
        return budget
    factory: Any = budgets.get(budget)
    if factory is PerLayerRates:
        raise PruningError("the budget 'rates' needs rates: pass budget=PerLayerRates(0.2, {'output': 0.1})")
    made: Budget = factory()
    return made
