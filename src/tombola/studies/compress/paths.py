"""Which sparsities are tried, one after the other: a path is one structure in one distribution.

A path goes up a ladder of sparsities, each candidate made of the one before it, until one loses too much. Then it looks
between the last that did not and the first that did, in the middle of what they keep by ratio. What cannot be traced or
trained ends its path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tombola.studies.compress.config import CompressConfig, Spread, Structure

LADDERS: dict[Structure, tuple[float, ...]] = {
    "dense": (0.0,),
    "weight": (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995),
    "unit": (0.25, 0.5, 0.7, 0.85, 0.95),
}
"""Fractions that go: none of the model as it is; of units fewer, for each of them takes rows and columns with it."""
DIGITS = 3
"""Decimals of a sparsity between two others."""


@dataclass(frozen=True)
class SearchPath:
    """One structure in one distribution."""

    structure: Structure
    distribution: Spread | None

    @property
    def name(self) -> str:
        return self.structure if self.distribution is None else f"{self.structure}-{self.distribution}"


@dataclass(frozen=True)
class Tried:
    """A sparsity of a path, and whether its candidate lost little enough to go on from, or cannot be made at all."""

    level: int
    sparsity: float
    within: bool
    ends: bool = False


def paths_of(config: CompressConfig) -> list[SearchPath]:
    """All paths of a search, in order."""
    spreads = {"dense": (None,)}
    return [SearchPath(s, d) for s in config.structures for d in spreads.get(s, config.distributions)]


def next_sparsity(tried: Sequence[Tried], ladder: Sequence[float], refinements: int) -> float | None:
    """What a path tries next; None at its end.

    Args:
        tried: What it tried so far.
        ladder: Ascending sparsities.
        refinements: How many are tried beyond the ladder.

    Examples:
        >>> next_sparsity([], (0.5, 0.9), 1)
        0.5
        >>> next_sparsity([Tried(0, 0.5, True), Tried(1, 0.9, False)], (0.5, 0.9), 1)
        0.776
    """
    if any(one.ends for one in tried):
        return None
    worse = [one.sparsity for one in tried if not one.within]
    if not worse:
        return next((rung for rung in ladder if rung not in {one.sparsity for one in tried}), None)
    extra = sum(one.sparsity not in ladder for one in tried)
    low, high = start_of(tried, min(worse)), min(worse)
    kept = math.sqrt((1 - (low.sparsity if low else 0.0)) * (1 - high))
    between = round(1 - kept, DIGITS)
    return between if extra < refinements and between not in {one.sparsity for one in tried} else None


def start_of(tried: Sequence[Tried], sparsity: float) -> Tried | None:
    """The candidate that one of this `sparsity` is made of: the sparsest before it that loses little enough.

    None for the parent itself.
    """
    able = [one for one in tried if one.within and one.sparsity < sparsity]
    return max(able, key=lambda one: one.sparsity, default=None)


def most_candidates(config: CompressConfig) -> int:
    """How many candidates a search makes at most."""
    return sum(len(LADDERS[path.structure]) + refinements_of(config, path) for path in paths_of(config))


def refinements_of(config: CompressConfig, path: SearchPath) -> int:
    """How many sparsities a path tries beyond its ladder; the model as it is has no others."""
    return 0 if path.structure == "dense" else config.refinements
