"""What was removed from a network for good: a record of kept indices, and how it is done to a network again."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer
from torch import Tensor, nn

from tombola.errors import ModelError
from tombola.models.resizing import resize
from tombola.runs.configs import Config

RANGES = r"\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*"


class Kept(Config):
    """Which indices stay of dimensions that are alike: `indices` such as `0-3,7`, `places` such as `conv_1.weight/0`.

    `of`: how many there were.
    """

    indices: str = Field(pattern=f"^{RANGES}$")
    of: int = Field(ge=1)
    places: tuple[str, ...] = Field(min_length=1)

    @field_validator("places")
    @classmethod
    def _are_places(cls, places: tuple[str, ...]) -> tuple[str, ...]:
        for place in places:
            if not re.fullmatch(r".+/\d", place):
                raise ValueError(f"{place!r} is no dimension of a tensor, such as conv_1.weight/0")
        return places

    def index(self) -> Tensor:
        """The indices in order; ModelError where they are not ascending numbers below `of`.

        On the meta device, for what asks of sizes alone, it takes no memory.
        """
        parts = [part.partition("-") for part in self.indices.split(",")]
        first = np.array([int(begin) for begin, _, _ in parts])
        last = np.array([int(end or begin) for begin, _, end in parts])
        if (first > last).any() or (last[:-1] >= first[1:]).any() or last[-1] >= self.of:
            raise ModelError(f"{self.places[0]}: {self.indices[:80]} are no ascending indices below {self.of}")
        sizes = last - first + 1
        if torch.empty(0).is_meta:
            return torch.empty(int(sizes.sum()), dtype=torch.int64)
        begins = np.cumsum(sizes) - sizes
        return torch.from_numpy(np.arange(sizes.sum()) + np.repeat(first - begins, sizes))


class Removal(Config):
    """All that was removed from a network: what stays of each dimension that became smaller, and layers passed by."""

    kept: tuple[Kept, ...] = ()
    bypassed: tuple[str, ...] = Field((), description="layers that are gone whole: what goes in comes out")

    @classmethod
    def of(cls, kept: Mapping[tuple[str, int], Tensor], sizes: Mapping[tuple[str, int], int]) -> Removal:
        """The record of kept indices by (tensor, dimension)."""
        alike: dict[tuple[str, int], list[str]] = defaultdict(list)
        for (tensor, dim), index in kept.items():
            alike[ranges(index.tolist()), sizes[tensor, dim]].append(f"{tensor}/{dim}")
        return cls(kept=tuple(Kept(indices=i, of=n, places=tuple(p)) for (i, n), p in alike.items()))

    def by_tensor(self) -> dict[str, dict[int, tuple[Tensor, int]]]:
        """Tensor -> dimension -> (indices that stay, how many there were)."""
        found: dict[str, dict[int, tuple[Tensor, int]]] = defaultdict(dict)
        for kept in self.kept:
            index = kept.index()
            for place in kept.places:
                tensor, _, dim = place.rpartition("/")
                found[tensor][int(dim)] = (index, kept.of)
        return found

    def after(self, later: Removal) -> Removal:
        """This record and then a later one, of the network that this one left, as one."""
        kept = self._places()
        sizes = {place: size for place, (_, size) in kept.items()}
        for place, (index, size) in later._places().items():
            first = kept.get(place)
            kept[place] = (index if first is None else first[0][index], size)
            sizes.setdefault(place, size)
        both = Removal.of({place: index for place, (index, _) in kept.items()}, sizes)
        return both.model_copy(update={"bypassed": self.bypassed + later.bypassed})

    def _places(self) -> dict[tuple[str, int], tuple[Tensor, int]]:
        return {(tensor, dim): there for tensor, dims in self.by_tensor().items() for dim, there in dims.items()}


class Bypass(nn.Module):
    """In place of a layer that is gone: gives its first argument, whatever else it is called with."""

    def forward(self, inputs: Tensor, *others: Any, **keywords: Any) -> Tensor:
        return inputs


class Removable(Config):
    """A spec of a model that may have lost units."""

    removed: Removal | None = Field(None, description="units that are gone; null for a whole model")

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A whole model's spec is written as it always was."""
        written: dict[str, Any] = handler(self)
        if written.get("removed") is None:
            written.pop("removed", None)
        return written

    def without_units(self, removal: Removal) -> Self:
        """The spec of the model that is left after a further removal."""
        return self.model_copy(update={"removed": self.removed.after(removal) if self.removed else removal})


def shrink(model: nn.Module, removal: Removal) -> None:
    """Does a removal to `model`, in place: tensors are cut and modules told their new sizes.

    Parameters become new ones; shared ones stay shared. Raises ModelError where the record is not of this model.
    """
    owned = _Owned(model)
    _refuse_foreign(model, owned, removal)
    for name, dims in removal.by_tensor().items():
        owners = owned.by(name)
        tensor = getattr(*owners[0])
        smaller = cut(tensor, dims)
        if isinstance(tensor, nn.Parameter):
            smaller = nn.Parameter(smaller, tensor.requires_grad)
        for module, attribute in owners:
            setattr(module, attribute, smaller)
    for name in removal.bypassed:
        model.set_submodule(name, Bypass())
    resize(model)


def cut(tensor: Tensor, dims: Mapping[int, tuple[Tensor, int]]) -> Tensor:
    """The part of a tensor that stays."""
    with torch.no_grad():
        for dim, (index, _) in dims.items():
            tensor = tensor.index_select(dim, index.to(tensor.device))
    return tensor.detach().contiguous()


def _refuse_foreign(model: nn.Module, owned: _Owned, removal: Removal) -> None:
    """Before any index is written out: a record may claim any sizes."""
    modules = dict(model.named_modules())
    for name in removal.bypassed:
        if not name or name not in modules:
            raise ModelError(f"the record of what was removed is not of this model: it has no layer {name!r}")
    named: dict[int, str] = {}
    for kept in removal.kept:
        for place in kept.places:
            name, _, dim = place.rpartition("/")
            tensor = getattr(*owned.by(name)[0])
            if (other := named.setdefault(id(tensor), name)) != name:
                raise ModelError(f"the record of what was removed names one tensor twice, {other} and {name}")
            shape = tuple(tensor.shape)
            if int(dim) >= len(shape) or shape[int(dim)] != kept.of:
                raise ModelError(
                    f"the record of what was removed is not of this model: {name} of shape {shape} has no dimension "
                    f"{dim} of size {kept.of}"
                )


class _Owned:
    """Who holds which tensor of a model: (module, attribute), before anything is changed."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.owners: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
        for module in model.modules():
            for held in (module._parameters, module._buffers):
                for attribute, value in held.items():
                    self.owners[id(value)].append((module, attribute))

    def by(self, name: str) -> list[tuple[nn.Module, str]]:
        """All that hold the tensor that the model calls `name`; ModelError where it has none of that name."""
        path, _, attribute = name.rpartition(".")
        try:
            tensor = getattr(self.model.get_submodule(path), attribute)
        except AttributeError:
            tensor = None
        if not isinstance(tensor, Tensor):
            raise ModelError(f"the record of what was removed is not of this model: it has no {name}")
        return self.owners[id(tensor)]


def ranges(indices: Sequence[int]) -> str:
    """`0-3,7` for 0, 1, 2, 3, 7."""
    parts: list[list[int]] = []
    for index in indices:
        if parts and parts[-1][-1] == index - 1:
            parts[-1][1:] = [index]
        else:
            parts.append([index])
    return ",".join("-".join(map(str, part)) for part in parts)


def parameters(model: nn.Module) -> int:
    """How many numbers the parameters of a model are; shared ones count once."""
    return sum(math.prod(parameter.shape) for parameter in model.parameters())
