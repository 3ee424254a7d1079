"""Units, each with all its places in the network, and groups of units that lie in the same places."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from tombola.compression.removal.labels import NONE, Indices, Lock
from tombola.compression.removal.reading import Place, Reading

Indexed = dict[Place, Indices]
"""For every place the indices that lie in it."""


@dataclass(frozen=True)
class Unit:
    """What goes or stays as a whole: `label` names it within a reading. `lock`: why it stays whatever is asked."""

    label: int
    places: Indexed
    lock: Lock | None


@dataclass(frozen=True)
class Group:
    """Units alike: all lie in the same places. `name` is that of the layers that compute them."""

    name: str
    units: tuple[Unit, ...]
    writers: tuple[Place, ...]


@dataclass(frozen=True)
class Grouped:
    """All units of a network. `free` groups can lose units, `bound` ones none."""

    reading: Reading
    free: tuple[Group, ...]
    bound: tuple[Group, ...]
    sizes: Mapping[Place, int]
    readers: frozenset[Place] = field(default_factory=frozenset)

    @property
    def groups(self) -> Iterator[Group]:
        yield from self.free
        yield from self.bound


def group(reading: Reading) -> Grouped:
    """The units of a network that was read. Those can go that at least one layer writes and one reads."""
    labels = reading.labels
    readers = frozenset((product.tensor, product.dim) for product in reading.products)
    lying: dict[int, dict[Place, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, dim in reading.places.items():
        for index, root in enumerate(labels.roots(dim).tolist()):
            if root != NONE:
                lying[root][place].append(index)
    locks = labels.locked()
    by_places: dict[tuple[Place, ...], list[Unit]] = defaultdict(list)
    for root, places in lying.items():
        written, read = any(p in reading.writers for p in places), any(p in readers for p in places)
        if written or read:
            indexed = {place: np.array(indices) for place, indices in places.items()}
            lock = locks.get(root, None if written and read else Lock("no layer reads them"))
            by_places[tuple(indexed)].append(Unit(root, indexed, lock))
    free: list[Group] = []
    bound: list[Group] = []
    for lies, units in by_places.items():
        writers = tuple(place for place in lies if place in reading.writers)
        for chosen, found in (
            (free, [unit for unit in units if unit.lock is None]),
            (bound, [unit for unit in units if unit.lock is not None]),
        ):
            if found:
                chosen.append(Group(_name(writers or lies), tuple(found), writers))
    sizes = {place: len(dim) for place, dim in reading.places.items()}
    return Grouped(reading, tuple(free), tuple(bound), sizes, readers)


def places_of(units: Iterable[Unit]) -> Indexed:
    """All places where some of these units lie, with their indices in order."""
    found: dict[Place, list[Indices]] = defaultdict(list)
    for unit in units:
        for place, indices in unit.places.items():
            found[place].append(indices)
    return {place: np.sort(np.concatenate(parts)) for place, parts in found.items()}


def _name(writers: tuple[Place, ...]) -> str:
    names = list(dict.fromkeys(tensor.removesuffix(".weight").removesuffix("_weight") for tensor, _ in writers))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
