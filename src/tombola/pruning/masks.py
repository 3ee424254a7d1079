"""Masks: which weights are kept. `Mask` is one tensor's, `Masks` a model's; True means keep.

Sparsity is always counted from the mask, never from `weight == 0`: a live weight may happen to be zero.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tombola.errors import PruningError
from tombola.pruning.prunable import listed, prunable_parameters
from tombola.pruning.wrapped import matched


class Mask:
    """Which entries of one tensor are kept. `keep` is a boolean tensor of that tensor's shape, any rank."""

    __slots__ = ("keep",)

    def __init__(self, keep: Tensor) -> None:
        """Takes a copy of `keep`, a boolean tensor; raises PruningError for any other type."""
        if not isinstance(keep, Tensor) or keep.dtype != torch.bool:
            kind = keep.dtype if isinstance(keep, Tensor) else type(keep).__name__
            raise PruningError(f"a mask is a boolean tensor, not {kind}; write for example `weights != 0`")
        self.keep = keep.detach().clone()

    @classmethod
    def full(cls, shape: torch.Size | tuple[int, ...], device: torch.device | None = None) -> Mask:
        """The mask that keeps everything."""
        return cls(torch.ones(shape, dtype=torch.bool, device=device))

    @property
    def shape(self) -> torch.Size:
        return self.keep.shape

    @property
    def total(self) -> int:
        return self.keep.numel()

    @property
    def kept(self) -> int:
        return int(self.keep.sum())

    @property
    def sparsity(self) -> float:
        """Share of entries removed; 0 for a tensor without entries."""
        return 1 - self.density

    @property
    def density(self) -> float:
        """Share of entries kept; 1 for a tensor without entries."""
        return self.kept / self.total if self.total else 1.0

    def apply(self, tensor: Tensor) -> Tensor:
        """A copy of `tensor` whose removed entries are exactly 0, even where they were infinite or NaN."""
        self._check(tensor)
        return tensor.masked_fill(~self.keep.to(tensor.device), 0)

    def apply_(self, tensor: Tensor) -> Tensor:
        """Sets the removed entries of `tensor` to exactly 0 in place and returns it."""
        self._check(tensor)
        with torch.no_grad():
            return tensor.masked_fill_(~self.keep.to(tensor.device), 0)

    def update(self, new: Mask) -> None:
        """Takes over `new`, which may only remove more; PruningError when it would bring an entry back."""
        self._check(new.keep)
        if not new <= self:
            returned = int((new.keep & ~self.keep).sum())
            raise PruningError(f"the new mask would bring back {returned} removed weight(s)")
        self.keep = new.keep.clone()

    def __and__(self, other: Mask) -> Mask:
        """Keeps what both keep."""
        self._check(other.keep)
        return Mask(self.keep & other.keep)

    def __le__(self, other: Mask) -> bool:
        """Whether everything kept here is kept in `other` too."""
        self._check(other.keep)
        return not bool((self.keep & ~other.keep).any())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and torch.equal(self.keep, other.keep)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Mask({'×'.join(map(str, self.shape))}, {self.kept} of {self.total} kept)"

    def _check(self, tensor: Tensor) -> None:
        if tensor.shape != self.keep.shape:
            raise PruningError(f"a mask of shape {tuple(self.shape)} does not fit {tuple(tensor.shape)}")


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
        from tombola.pruning.held import held  # which needs this module

        return held(self, model, optimizer)

    def parameters_of(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters of `model` by the names that they have in these masks, in the model's order.

        A shared parameter may go by any of its names. PruningError when `model` has other weights or shapes.
        """
        parameters = prunable_parameters(model)
        weights = {id(parameter) for parameter in parameters.values()}
        every = {n: p for n, p in model.named_parameters(remove_duplicate=False) if id(p) in weights}
        names: dict[int, list[str]] = {id(parameter): [] for parameter in parameters.values()}
        pairs = matched(self, every)
        for own, name in pairs.items():
            names[id(every[name])].append(own)
        missing = [name for name, parameter in parameters.items() if not names[id(parameter)]]
        if odd := sorted({*missing, *(own for own in self if own not in pairs)}):
            raise PruningError(f"the masks do not belong to this model: they differ in {listed(odd)}")
        for own, name in pairs.items():
            shape = tuple(every[name].shape)
            if self[own].shape != shape:
                raise PruningError(f"{own}: a mask of shape {tuple(self[own].shape)} does not fit {shape}")
        for first, *others in names.values():
            if different := [other for other in others if self[other] != self[first]]:
                raise PruningError(f"{first} and {different[0]} are one weight of the model, their masks differ")
        return {names[id(parameter)][0]: parameter for parameter in parameters.values()}

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
