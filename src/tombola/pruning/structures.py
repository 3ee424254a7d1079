"""Structures: the unit that is kept or removed whole.

A structure says which layers it fits, how a weight tensor falls into units, how weight scores pool to unit
scores, which units are still alive, and how a decision on units spreads to a mask. It reads a tensor through
its `Layout`, so that one definition holds for Linear layers and for every kind of convolution.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from tombola.errors import ConfigError, PruningError
from tombola.pruning.prunable import Layout
from tombola.registry import Registry


class Structure(ABC):
    """The contract. Subclasses say how a tensor becomes a matrix of units × their weights, and back.

    Units are numbered by position: ties between them go to the first first.
    """

    name: str
    sparsity: float | None = None
    """The fraction of a layer's weights that the structure itself removes; None where distributions decide."""

    def fits(self, layout: Layout) -> bool:
        """Whether layers of this kind have such units; layers that have none are left as they are."""
        return True

    def check(self, layout: Layout) -> None:
        """Raises PruningError where a layer that the structure fits has a shape that does not divide."""
        return

    @abstractmethod
    def to_units(self, tensor: Tensor, layout: Layout) -> Tensor:
        """`tensor` of the layout's shape as a matrix (units, weights of a unit)."""

    @abstractmethod
    def from_units(self, matrix: Tensor, layout: Layout) -> Tensor:
        """The inverse of `to_units`."""

    def removals(self, keep: Tensor, layout: Layout) -> int:
        """How many live units a structure that fixes its sparsity makes a layer lose now."""
        raise NotImplementedError

    def pool(self, scores: Tensor, keep: Tensor, layout: Layout) -> Tensor:
        """Unit scores, 1-D: the mean over a unit's weights, so that small and large units compare.

        `keep` is the mask before this pruning, of the layout's shape, as are `scores`.
        """
        return self.to_units(scores, layout).mean(1)

    def alive(self, keep: Tensor, layout: Layout) -> Tensor:
        """Which units still hold a kept weight, 1-D boolean, from a mask's tensor."""
        return self.to_units(keep, layout).any(1)

    def spread(self, units: Tensor, layout: Layout) -> Tensor:
        """A tensor of the layout's shape in which every weight has the value of its unit."""
        matrix_shape = (units.numel(), layout.shape.numel() // max(1, units.numel()))
        return self.from_units(units.unsqueeze(1).expand(matrix_shape), layout)

    def sum_over_units(self, tensor: Tensor, layout: Layout) -> Tensor:
        """A tensor of the layout's shape in which every weight has the sum over its unit."""
        return self.spread(self.to_units(tensor, layout).sum(1), layout)


structures: Registry[Structure] = Registry("structure")


class Weight(Structure):
    """Single weights, anywhere: unstructured pruning."""

    name = "weight"

    def to_units(self, tensor: Tensor, layout: Layout) -> Tensor:
        return tensor.reshape(-1, 1)

    def from_units(self, matrix: Tensor, layout: Layout) -> Tensor:
        return matrix.reshape(layout.shape)

    def pool(self, scores: Tensor, keep: Tensor, layout: Layout) -> Tensor:
        return scores.reshape(-1)

    def alive(self, keep: Tensor, layout: Layout) -> Tensor:
        return keep.reshape(-1)

    def sum_over_units(self, tensor: Tensor, layout: Layout) -> Tensor:
        return tensor


class Neuron(Structure):
    """All weights into one output of a Linear layer. Its bias stays: a removed neuron still gives a constant."""

    name = "neuron"

    def fits(self, layout: Layout) -> bool:
        return layout.kind == "linear"

    def to_units(self, tensor: Tensor, layout: Layout) -> Tensor:
        return layout.canonical(tensor).flatten(0, 1).flatten(1)

    def from_units(self, matrix: Tensor, layout: Layout) -> Tensor:
        return layout.original(matrix.reshape(layout.groups, layout.outputs, layout.inputs, -1))


class Filter(Neuron):
    """All weights of one output channel of a convolution (Li et al. 2017, arXiv 1608.08710)."""

    name = "filter"

    def fits(self, layout: Layout) -> bool:
        return layout.kind == "convolution"


class Channel(Structure):
    """All weights of a convolution that read one input channel."""

    name = "channel"

    def fits(self, layout: Layout) -> bool:
        return layout.kind == "convolution"

    def to_units(self, tensor: Tensor, layout: Layout) -> Tensor:
        return layout.canonical(tensor).transpose(1, 2).flatten(0, 1).flatten(1)

    def from_units(self, matrix: Tensor, layout: Layout) -> Tensor:
        by_input = matrix.reshape(layout.groups, layout.inputs, layout.outputs, -1)
        return layout.original(by_input.transpose(1, 2))


@dataclass(frozen=True)
class Block(Structure):
    """Blocks of `rows` outputs × `columns` weights of the matrix (outputs, inputs · kernel positions).

    Named `block:RxC`. A layer whose matrix does not divide into such blocks is an error.
    """

    rows: int = 4
    columns: int = 4

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"block:{self.rows}x{self.columns}"

    def check(self, layout: Layout) -> None:
        rows, columns = layout.outputs, layout.shape.numel() // (layout.groups * layout.outputs)
        if rows % self.rows or columns % self.columns:
            raise PruningError(
                f"its {rows}×{columns} matrix does not divide into blocks of {self.rows}×{self.columns}; protect the "
                "layer or use another block"
            )

    def to_units(self, tensor: Tensor, layout: Layout) -> Tensor:
        matrices = layout.canonical(tensor).flatten(2)
        down, across = matrices.shape[1] // self.rows, matrices.shape[2] // self.columns
        blocks = matrices.reshape(layout.groups, down, self.rows, across, self.columns).transpose(2, 3)
        return blocks.reshape(-1, self.rows * self.columns)

    def from_units(self, matrix: Tensor, layout: Layout) -> Tensor:
        down = layout.outputs // self.rows
        blocks = matrix.reshape(layout.groups, down, -1, self.rows, self.columns).transpose(2, 3)
        return layout.original(blocks.reshape(layout.groups, layout.outputs, layout.inputs, -1))


@dataclass(frozen=True)
class NofM(Structure):
    """n of every m weights that follow one another along the inputs are kept: `2:4` and the like.

    As in NVIDIA's sparse tensor cores (Mishra et al. 2021, arXiv 2104.08378); in a convolution the inputs are
    the channels at one kernel position. The structure fixes the sparsity of every layer, so distributions have
    nothing to decide. A layer whose inputs do not divide by m is an error.
    """

    kept: int = 2
    of: int = 4

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.kept}:{self.of}"

    @property
    def sparsity(self) -> float:  # type: ignore[override]
        return 1 - self.kept / self.of

    def check(self, layout: Layout) -> None:
        if layout.inputs % self.of:
            raise PruningError(
                f"its {layout.inputs} inputs do not divide into groups of {self.of}, as {self.name} needs; protect "
                "the layer or use another n:m"
            )

    def to_units(self, tensor: Tensor, layout: Layout) -> Tensor:
        return layout.canonical(tensor).transpose(2, 3).reshape(-1, 1)

    def from_units(self, matrix: Tensor, layout: Layout) -> Tensor:
        by_position = matrix.reshape(layout.groups, layout.outputs, -1, layout.inputs)
        return layout.original(by_position.transpose(2, 3))

    def pool(self, scores: Tensor, keep: Tensor, layout: Layout) -> Tensor:
        """The rank of a weight among the m of its group, removed ones first: the m - n lowest ranks go."""
        groups = self.to_units(scores, layout).reshape(-1, self.of)
        removed_first = self.to_units(keep, layout).reshape(-1, self.of)
        by_score = groups.argsort(dim=1, stable=True)
        order = by_score.gather(1, removed_first.gather(1, by_score).long().argsort(dim=1, stable=True))
        ranks = torch.empty_like(order).scatter_(1, order, torch.arange(self.of, device=order.device).expand_as(order))
        return ranks.reshape(-1).to(torch.float32)

    def removals(self, keep: Tensor, layout: Layout) -> int:
        kept = self.to_units(keep, layout).reshape(-1, self.of).sum(1)
        if bool((kept < self.kept).any()):
            raise PruningError(
                f"a group of {self.of} weights has {int(kept.min())} left, fewer than the {self.kept} of {self.name}: "
                "start from masks that leave enough"
            )
        return int((kept - self.kept).sum())


for _structure in (Weight(), Neuron(), Filter(), Channel(), Block(), NofM()):
    structures.register(_structure.name)(_structure)


def make_structure(structure: str | Structure) -> Structure:
    """A structure from its name: a registered one, `block` (4×4), `block:RxC` or `N:M`; or the structure itself."""
    if isinstance(structure, Structure):
        return structure
    if not isinstance(structure, str):
        raise ConfigError(f"a structure is a name or a Structure, not a {type(structure).__name__}")
    if structure == "block":
        return Block()
    if (block := re.fullmatch(r"block:([1-9]\d{0,3})x([1-9]\d{0,3})", structure)) is not None:
        return Block(int(block[1]), int(block[2]))
    if (pattern := re.fullmatch(r"([1-9]\d{0,3}):([1-9]\d{0,3})", structure)) is not None:
        kept, of = int(pattern[1]), int(pattern[2])
        if kept >= of:
            raise ConfigError(f"structure {structure!r}: n:m keeps fewer than m, for example 2:4")
        return NofM(kept, of)
    return structures.get(structure)
