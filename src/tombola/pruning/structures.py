"""Structures: the unit that is kept or removed whole.

A structure says how many units a weight tensor has, how weight scores pool to unit scores, which units are
still alive, and how a decision on units spreads to a mask.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from tombola.registry import Registry


class Structure(Protocol):
    """The contract of a structure; every method works on one parameter's tensors.

    `shape` is the parameter's, `units` the number of units in it; units are numbered by position.
    """

    def units(self, shape: torch.Size) -> int:
        """How many units a parameter of `shape` has; raises PruningError where the structure does not fit."""
        ...

    def pool(self, scores: Tensor) -> Tensor:
        """Unit scores, 1-D, from a tensor of weight scores."""
        ...

    def alive(self, keep: Tensor) -> Tensor:
        """Which units still hold a kept weight, 1-D boolean, from a mask's tensor."""
        ...

    def spread(self, keep_units: Tensor, shape: torch.Size) -> Tensor:
        """The boolean mask of `shape` that keeps the weights of the kept units."""
        ...


structures: Registry[Structure] = Registry("structure")


class Weight:
    """Single weights: unstructured pruning."""

    def units(self, shape: torch.Size) -> int:
        return shape.numel()

    def pool(self, scores: Tensor) -> Tensor:
        return scores.flatten()

    def alive(self, keep: Tensor) -> Tensor:
        return keep.flatten()

    def spread(self, keep_units: Tensor, shape: torch.Size) -> Tensor:
        return keep_units.view(shape)


structures.register("weight")(Weight())
