"""Which indices of which dimensions belong together: a union-find over labels, and the locks on them.

Every index of a parameter's dimension has a label. Operations unite labels whose indices must stay or go together, and
lock those that may not go, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Dims = list[Indices]
"""Of a tensor: for every dimension the label of every index, or -1 where no unit lies there."""

NONE = -1


@dataclass(frozen=True)
class Lock:
    """Why units stay. `unknown`: of an operation that we do not know, so that asking for such a unit is an error."""

    reason: str
    unknown: bool = False


class Labels:
    """The labels, their unions and locks."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._locks: dict[int, Lock] = {}

    def fresh(self, count: int) -> Indices:
        """New labels, each for itself."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def root(self, label: int) -> int:
        """What all labels that belong together have in common."""
        parent = self._parent
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return label

    def roots(self, labels: Indices) -> Indices:
        """`root` of each; -1 stays."""
        return np.array([NONE if label == NONE else self.root(label) for label in labels.tolist()], dtype=np.int64)

    def unite(self, one: Indices, other: Indices, lock: Lock) -> None:
        """Index by index; where only one of them has a label it is locked: the other side keeps its size."""
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            if a != NONE and b != NONE:
                self._unite(a, b)
            elif a != b:
                self._lock(max(a, b), lock)

    def unite_all(self, rows: NDArray[np.int64]) -> None:
        """All labels of a column of a matrix become one."""
        for row in rows[1:]:
            for a, b in zip(rows[0].tolist(), row.tolist(), strict=True):
                if a != NONE and b != NONE:
                    self._unite(a, b)

    def lock(self, labels: Indices, lock: Lock) -> None:
        for label in labels.tolist():
            if label != NONE:
                self._lock(label, lock)

    def locked(self) -> dict[int, Lock]:
        """The lock of every root that has one; one of an unknown operation before others."""
        found: dict[int, Lock] = {}
        for label, lock in self._locks.items():
            root = self.root(label)
            if root not in found or (lock.unknown and not found[root].unknown):
                found[root] = lock
        return found

    def _lock(self, label: int, lock: Lock) -> None:
        if label not in self._locks or lock.unknown:
            self._locks[label] = lock

    def _unite(self, a: int, b: int) -> None:
        a, b = self.root(a), self.root(b)
        if a != b:
            self._parent[max(a, b)] = min(a, b)


def unlabelled(count: int) -> Indices:
    """A dimension without units, such as examples or pixels."""
    return np.full(count, NONE, dtype=np.int64)


def has_units(dim: Indices) -> bool:
    return bool((dim != NONE).any())
