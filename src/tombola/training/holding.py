"""Holding a mask: after every optimizer step the removed weights are exactly 0 again.

Masking gradients alone does not do it: momentum and weight decay move removed weights all the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from tombola.pruning import Masks
from tombola.training.flat import FlatParameters


class Held:
    """Masks in force on flat parameters. Removed weights are zeroed at once, and by `reapply` after every step."""

    def __init__(self, flat: FlatParameters, masks: Masks) -> None:
        self.flat = flat
        # Without removed weights there is nothing to do after a step, and no vector to do it with.
        self.multiplier = None if masks.kept == masks.total else flat.multiplier(masks)
        self.reapply()

    def reapply(self) -> None:
        """To call after every optimizer step."""
        if self.multiplier is not None:
            self.flat.values.mul_(self.multiplier)

    def replace(self, masks: Masks, optimizer_state: Iterable[Tensor]) -> None:
        """Puts other masks in force, in place. Weights that come back start at 0, as if never met.

        Their values are 0 already, but while a weight was removed, its momentum went on collecting the dense
        gradient; with that, its first step would be a leap. So every tensor of `optimizer_state` with an entry
        per weight is reset there, as in RigL. Weights that stay keep value and state.
        """
        multiplier = self.flat.multiplier(masks)
        if self.multiplier is None:
            self.multiplier = multiplier
        else:
            returning = multiplier > self.multiplier
            for tensor in optimizer_state:
                if tensor.shape == returning.shape:
                    tensor.masked_fill_(returning, 0)
            self.multiplier.copy_(multiplier)
        self.reapply()
