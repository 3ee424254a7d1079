"""The mask of one tensor: which of its entries are kept; True means keep.

Sparsity is always counted from the mask, never from `weight == 0`: a kept weight may happen to be zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tombola.errors import PruningError, counted


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
        return int(torch.count_nonzero(self.keep))  # a sum would first make eight bytes of each

    @property
    def sparsity(self) -> float:
        """Fraction of entries removed; 0 for a tensor without entries."""
        return 1 - self.density

    @property
    def density(self) -> float:
        """Fraction of entries kept; 1 for a tensor without entries."""
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
            raise PruningError(f"the new mask would bring back {counted(returned, 'removed weight')}")
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
