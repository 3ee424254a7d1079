"""The masks of a model: a `Mask` for every prunable weight, by name; what they are called elsewhere is in `naming`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tombola.errors import PruningError
from tombola.pruning.held import held
from tombola.pruning.mask import Mask
from tombola.pruning.naming import parameters_of
from tombola.pruning.prunable import listed, prunable_parameters
from tombola.pruning.wrapped import matched


@dataclass(frozen=True)
class LayerSparsity:
    """One line of a per-layer table."""

    name: str
    shape: tuple[int, ...]
    total: int
    kept: int

    @property
    def density(self) -> float:
        return self.kept / self.total if self.total else 1.0


class Masks(Mapping[str, Mask]):
    """The masks of a model by parameter name, in `named_parameters` order.

    Where masks meet a model or other masks, neither their order matters nor what torch.compile or DataParallel put
    into names.
    """

    def __init__(self, masks: Mapping[str, Mask]) -> None:
        self._masks = dict(masks)
        if odd := [name for name, mask in self._masks.items() if not isinstance(mask, Mask)]:
            raise PruningError(f"{odd[0]}: not a Mask; of boolean tensors make masks with Masks.from_tensors")

    @classmethod
    def full(cls, model: nn.Module) -> Masks:
        """Masks that keep every prunable weight of `model`."""
        return cls({n: Mask.full(p.shape, p.device) for n, p in prunable_parameters(model).items()})

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Masks:
        """Masks from boolean tensors by parameter name, as `to_tensors` gives them."""
        return cls({name: Mask(keep) for name, keep in tensors.items()})

    def to_tensors(self) -> dict[str, Tensor]:
        """Copies of the boolean tensors by parameter name."""
        return {name: mask.keep.clone() for name, mask in self.items()}

    def __getitem__(self, name: str) -> Mask:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    @property
    def total(self) -> int:
        return sum(mask.total for mask in self.values())

    @property
    def kept(self) -> int:
        return sum(mask.kept for mask in self.values())

    @property
    def density(self) -> float:
        return self.kept / self.total if self.total else 1.0

    @property
    def sparsity(self) -> float:
        return 1 - self.density

    def table(self) -> list[LayerSparsity]:
        """One entry per layer, in order."""
        return [LayerSparsity(n, tuple(m.shape), m.total, m.kept) for n, m in self.items()]

    def apply_(self, model: nn.Module) -> None:
        """Sets the removed weights of `model` to exactly 0 in place."""
        for name, parameter in self.parameters_of(model).items():
            self[name].apply_(parameter)

    def removed_nonzeros(self, model: nn.Module) -> int:
        """How many removed weights of `model` are not 0; 0 when the masks hold. NaN counts as not 0."""
        parameters = self.parameters_of(model)
        return sum(int((p.detach()[~self[n].keep.to(p.device)] != 0).sum()) for n, p in parameters.items())

    def held(
        self, model: nn.Module, optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer]
    ) -> contextlib.AbstractContextManager[Masks]:
        """Holds these masks in a training loop: `with masks.held(model, optimizer): ...` (see `held.held`)."""
        return held(self, model, optimizer)

    def parameters_of(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters of `model` by the names that they have in these masks (see `naming.parameters_of`)."""
        return parameters_of(self, model)

    def cpu(self) -> Masks:
        """These masks where they are checked and stored; themselves, where they are there."""
        if all(mask.keep.is_cpu for mask in self.values()):
            return self
        return Masks({name: Mask(mask.keep.cpu()) for name, mask in self.items()})

    def of(self, model: nn.Module) -> Masks:
        """These masks by the names and in the order of `model`, on its devices; PruningError for other weights."""
        own = {id(parameter): name for name, parameter in self.parameters_of(model).items()}
        named = {name: (self[own[id(p)]], p.device) for name, p in prunable_parameters(model).items()}
        if list(named) == list(self) and all(mask.keep.device == device for mask, device in named.values()):
            return self
        return Masks({name: Mask(mask.keep.to(device)) for name, (mask, device) in named.items()})

    def __and__(self, other: Masks) -> Masks:
        """Keeps what both keep; both must name the same parameters."""
        partner = self._partners(other)
        return Masks({name: mask & other[partner[name]] for name, mask in self.items()})

    def __le__(self, other: Masks) -> bool:
        """Whether everything kept here is kept in `other` too."""
        partner = self._partners(other)
        return all(mask <= other[partner[name]] for name, mask in self.items())

    def __eq__(self, other: object) -> bool:
        """Whether both keep the same weights of the same parameters, in whatever order."""
        if not isinstance(other, Masks):
            return super().__eq__(other)
        partner = matched(self, other)
        return len(partner) == len(self) == len(other) and all(m == other[partner[n]] for n, m in self.items())

    __hash__ = None  # type: ignore[assignment]

    def _partners(self, other: Masks) -> dict[str, str]:
        if not isinstance(other, Masks):
            raise PruningError(f"masks go with other Masks, not with {type(other).__name__}")
        partner = matched(self, other)
        if odd := sorted({*(n for n in self if n not in partner), *(set(other) - set(partner.values()))}):
            raise PruningError(f"the masks are of different models: they differ in {listed(odd)}")
        return partner

    def __repr__(self) -> str:
        return f"Masks({len(self)} layers, {self.kept} of {self.total} kept)"
