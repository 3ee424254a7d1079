"""Holding a mask: after every optimizer step the removed weights are exactly 0 again.

Masking gradients alone does not do it: momentum and weight decay move removed weights all the same.
"""

from __future__ import annotations

from collections.abc import Callable

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

    def silence(self) -> None:
        """Makes gradients those of the pruned network: 0 at removed weights."""
        if self.multiplier is not None:
            self.flat.gradients.mul_(self.multiplier)

    def replace(self, masks: Masks, forget: Callable[[Tensor], None]) -> None:
        """Puts other masks in force, in place. Weights that come back start at 0, as if never met.

        Their values are 0 already, but while a weight was removed, its momentum went on collecting the dense
        gradient; with that, its first step would be a leap. So the optimizer is told to `forget` them, as in RigL.
        Weights that stay keep value and state.
        """
        multiplier = self.flat.multiplier(masks)
        if self.multiplier is None:
            self.multiplier = multiplier
        else:
            forget(multiplier > self.multiplier)
            self.multiplier.copy_(multiplier)
        self.reapply()
