"""Where the values of a graph lie while it runs: how long each is needed, and what may take its place afterwards."""

from __future__ import annotations

from tombola.compression.graphs.nodes import Combine, Convolution, Flatten, Graph, Pool
from tombola.kernels.pools import PoolKind

ALIGNMENT = 16
"""Floats: where a value begins."""


class Room:
    """Memory that is given out in the order of use; `size` is how much was in use at most."""

    def __init__(self) -> None:
        self.size = 0
        self._taken: list[tuple[int, int]] = []

    def take(self, count: int) -> int:
        """Where the first gap of `count` floats begins. What is taken has a place of its own even if it is nothing."""
        count, begin = max(1, count), 0
        for start, end in self._taken:
            if start - begin >= count:
                break
            begin = end
        end = begin + -(-count // ALIGNMENT) * ALIGNMENT
        self._taken = sorted([*self._taken, (begin, end)])
        self.size = max(self.size, end)
        return begin

    def give_back(self, begin: int) -> None:
        """What was taken at `begin` is free again."""
        self._taken = [taken for taken in self._taken if taken[0] != begin]


def borders(graph: Graph) -> list[int]:
    """For every value as a panel the border that its readers want, the same for values that are added up."""
    wanted = [0] * (len(graph.nodes) + 1)
    alike = list(range(len(wanted)))
    for number, node in enumerate(graph.nodes):
        if isinstance(node, Convolution):
            wanted[node.inputs[0]] = max(wanted[node.inputs[0]], *node.window.padding)
            _join(alike, [*node.inputs[1:], number + 1])
        elif isinstance(node, Pool) and node.kind is PoolKind.MEAN:
            wanted[node.inputs[0]] = max(wanted[node.inputs[0]], *node.window.padding)
        elif isinstance(node, Combine):
            _join(alike, [*node.inputs, number + 1])
    largest = {group: max(own for own, kin in zip(wanted, alike, strict=True) if kin == group) for group in set(alike)}
    return [largest[group] for group in alike]


def _join(alike: list[int], values: list[int]) -> None:
    groups = {alike[value] for value in values}
    for value, group in enumerate(alike):
        if group in groups:
            alike[value] = min(groups)


def last_uses(graph: Graph, same: dict[int, int]) -> list[int]:
    """For each value the last node that needs its memory. `same`: values that lie in the memory of another."""
    last = graph.last_uses()
    for value in sorted(same, reverse=True):
        last[same[value]] = max(last[same[value]], last[value])
    return last


def flattened(graph: Graph) -> dict[int, int]:
    """Values that are others without height and width."""
    return {number + 1: node.inputs[0] for number, node in enumerate(graph.nodes) if isinstance(node, Flatten)}
