"""Which units masks leave without effect, and how the constants that such units give are kept.

A unit goes when every layer that reads it either reads none of it, by the masks, or always reads one number. Such a
number is added to the reader's bias. Where that would not be the same (a border of zeros, no bias), one unit stays and
carries the constants of all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tombola.compression.removal.groups import Group, Grouped, Indexed, Unit, places_of
from tombola.compression.removal.known import PRODUCTS, Known
from tombola.compression.removal.reading import Product
from tombola.compression.removal.trace import layer_of, operation


@dataclass
class Masked:
    """A network under masks. `weights` are its own tensors, masks applied; `keeps` the masks by name."""

    grouped: Grouped
    model: nn.Module
    keeps: dict[str, Tensor]
    pinned: dict[int, str] = field(default_factory=dict)
    """Units that stay, by label, and why."""

    def __post_init__(self) -> None:
        reading = self.grouped.reading
        self.weights: dict[str, Tensor] = {n: p.detach() for n, p in self.model.named_parameters()}
        self.known = Known(reading.traced, self.model, self.keeps)
        self.reads = [
            Read(product, self.known.constants(product), self._matrix(product)) for product in reading.products
        ]
        self._uses = Counter(name for p in reading.products for name in (p.tensor, p.bias))

    def removable(self) -> list[Unit]:
        """The units that go; `pinned` says of others why they stay although they do nothing."""
        while True:
            gone = self._without_effect()
            stays = self._needed(gone)
            if not stays:
                return gone
            self.pinned.update(stays)

    def fold(self, gone: list[Unit]) -> None:
        """Gives biases and carriers what removed units gave, in place, and the masks what carriers need."""
        places = places_of(gone)
        for read in self.reads:
            given = self._given(read, places)
            if given is None:
                continue
            if (by_row := self._by_row(read, given)) is not None:
                bias = self.weights[read.product.bias or ""]
                alive = self._alive(read, places)
                bias[alive] += by_row[alive]
            else:
                self._carry(read, places)

    def reason(self, unit: Unit) -> str:
        """Why a unit that some layer's masks remove is still there."""
        if unit.label in self.pinned:
            return self.pinned[unit.label]
        for read in self.reads:
            indices = unit.places.get((read.product.tensor, read.product.dim))
            if indices is not None and bool(read.needed(torch.ones(len(read.matrix), dtype=torch.bool))[indices].any()):
                return f"{layer_of(read.product.node)} reads it, and another layer still gives it something"
        return "it is read"

    def _matrix(self, product: Product) -> Tensor:
        """(outputs, inputs): whether any kept weight lies between them."""
        keep = self.keeps.get(product.tensor)
        keep = torch.ones_like(self.weights[product.tensor], dtype=torch.bool) if keep is None else keep
        return keep.movedim((product.rows, product.dim), (0, 1)).unsqueeze(2).flatten(2).any(2)

    def _without_effect(self) -> list[Unit]:
        """To a fixed point: what is read by removed units alone goes, too."""
        gone: dict[int, Unit] = {}
        while True:
            places = places_of(gone.values())
            needed = {id(read): read.needed(self._alive(read, places)) for read in self.reads}
            found = {u.label: u for g in self.grouped.free for u in self._of(g, needed)}
            if found.keys() == gone.keys():
                return list(found.values())
            gone = found

    def _of(self, group: Group, needed: Mapping[int, Tensor]) -> list[Unit]:
        reads = [r for r in self.reads if (r.product.tensor, r.product.dim) in group.units[0].places]
        found = []
        for unit in group.units:
            own = [needed[id(r)][unit.places[r.product.tensor, r.product.dim]] for r in reads]
            if unit.label not in self.pinned and not any(bool(part.any()) for part in own):
                found.append(unit)
        return found

    def _needed(self, gone: list[Unit]) -> dict[int, str]:
        """Units that have to stay after all: a layer's last one, and carriers of constants."""
        places = places_of(gone)
        for place, indices in places.items():
            if len(indices) == self.grouped.sizes[place]:
                last = next(unit for unit in gone if place in unit.places)
                return {last.label: "it is the last one of its layer"}
        stays: dict[int, str] = {}
        for read in self.reads:
            given = self._given(read, places)
            if given is not None and self._by_row(read, given) is None and self._carrier(read, places) is None:
                stays |= self._carriers(read, places, gone)
        return stays

    def _carriers(self, read: Read, places: Indexed, gone: list[Unit]) -> dict[int, str]:
        product = read.product
        lost = self._lost(read, places)
        indices = lost.tolist() if read.grouped or self._uses[product.tensor] > 1 else [_largest(read.constants, lost)]
        place = product.tensor, product.dim
        why = f"it carries constants into {layer_of(product.node)}, which has no bias or pads with zeros"
        return {u.label: why for u in gone if place in u.places and set(u.places[place].tolist()) & set(indices)}

    def _alive(self, read: Read, places: Indexed) -> Tensor:
        alive = torch.ones(len(read.matrix), dtype=torch.bool)
        removed = places.get((read.product.tensor, read.product.rows))
        if removed is not None:
            alive[torch.from_numpy(removed)] = False
        return alive

    def _lost(self, read: Read, places: Indexed) -> Tensor:
        """Removed inputs of a layer that give it something: indices along its weight."""
        removed = places.get((read.product.tensor, read.product.dim))
        if removed is None:
            return torch.empty(0, dtype=torch.long)
        index = torch.from_numpy(removed)
        gives = read.gives & read.matrix[self._alive(read, places)].any(0)
        return index[gives[index]]

    def _given(self, read: Read, places: Indexed) -> Tensor | None:
        """What the removed inputs of a layer gave to its outputs, of the outputs' shape; None for nothing."""
        lost = self._lost(read, places)
        if not len(lost):
            return None
        constants = torch.zeros_like(read.constants)
        inputs = read.by_index(constants)
        inputs[:, lost] = read.by_index(read.constants)[:, lost]
        shape = [1] * read.product.inputs.meta["val"].dim()
        shape[read.product.axis] = -1
        full = constants.view(shape).expand(tuple(read.product.inputs.meta["val"].shape))
        arguments = list(read.product.node.args)
        at_inputs, at_weight, at_bias = PRODUCTS[operation(read.product.node)]
        weight = self.weights[read.product.tensor]
        arguments[at_inputs], arguments[at_weight] = full, weight
        if at_bias == 0:
            arguments[0] = torch.zeros(weight.shape[read.product.rows])
        elif at_bias is not None and len(arguments) > at_bias:
            arguments[at_bias] = None
        given: Tensor = read.product.node.target(*arguments)  # type: ignore[operator]
        rows = given.movedim(1 if "conv" in operation(read.product.node) else -1, 0).flatten(1)
        alive = self._alive(read, places)
        return torch.where(alive[:, None], rows, 0) if len(alive) == len(rows) else rows

    def _by_row(self, read: Read, given: Tensor) -> Tensor | None:
        """A number for every output, where that is what was given and there is a bias of its own to hold it."""
        product = read.product
        if product.bias is None or self._uses[product.bias] > 1 or self._uses[product.tensor] > 1:
            return None
        if not len(given) == len(read.matrix) == len(self.weights[product.bias]):
            return None
        spread = (given.max(1).values - given.min(1).values).max()
        return given[:, 0] if float(spread) <= 1e-6 * float(given.abs().max()) else None

    def _carrier(self, read: Read, places: Indexed) -> int | None:
        """An input that stays and is a constant: others' constants are multiples of it."""
        if read.grouped or self._uses[read.product.tensor] > 1:
            return None
        staying = read.gives.clone()
        removed = places.get((read.product.tensor, read.product.dim))
        if removed is not None:
            staying[torch.from_numpy(removed)] = False
        index = staying.nonzero().flatten()
        return _largest(read.constants, index) if len(index) else None

    def _carry(self, read: Read, places: Indexed) -> None:
        product, carrier, lost = read.product, self._carrier(read, places), self._lost(read, places)
        assert carrier is not None  # `removable` pinned one
        weight = self.weights[product.tensor].movedim(product.dim, 0)
        ratio = (read.constants[lost] / read.constants[carrier]).view(-1, *[1] * (weight.dim() - 1))
        weight[carrier] += (weight[lost] * ratio).sum(0)
        if (keep := self.keeps.get(product.tensor)) is not None:
            keep.movedim(product.dim, 0)[carrier] |= keep.movedim(product.dim, 0)[lost].any(0)


@dataclass(frozen=True, eq=False)
class Read:
    """A product with what its inputs always are, 1-D (NaN: not always the same), and `matrix` of who reads what."""

    product: Product
    constants: Tensor
    matrix: Tensor

    @property
    def grouped(self) -> bool:
        """Whether an index along the weight is several inputs: a grouped convolution."""
        return len(self.constants) != self.matrix.shape[1]

    def by_index(self, constants: Tensor) -> Tensor:
        """(groups, indices along the weight), a view."""
        return constants.view(-1, self.matrix.shape[1]) if self.grouped else constants.view(1, -1)

    @property
    def gives(self) -> Tensor:
        """Which indices along the weight are constants other than 0."""
        by_index = self.by_index(self.constants)
        return (by_index != 0).any(0) & ~by_index.isnan().any(0)

    def needed(self, alive: Tensor) -> Tensor:
        """Which indices along the weight are read by outputs that are `alive` and are no constants."""
        return self.matrix[alive].any(0) & self.by_index(self.constants).isnan().any(0)


def _largest(constants: Tensor, index: Tensor) -> int:
    return int(index[constants[index].abs().argmax()])
