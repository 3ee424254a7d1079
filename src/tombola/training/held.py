"""Holding a mask: after every optimizer step the removed weights are exactly 0 again.

Masking gradients alone does not do it: momentum and weight decay move removed weights all the same.
"""

from __future__ import annotations

from collections.abc import Callable

from tombola.pruning import Masks
from tombola.training.flat import FlatParameters


def hold(flat: FlatParameters, masks: Masks) -> Callable[[], None]:
    """Zeroes the removed weights now and returns the function to call after every optimizer step."""
    multiplier = flat.multiplier(masks)
    if multiplier is None:
        return lambda: None

    def reapply() -> None:
        flat.values.mul_(multiplier)

    reapply()
    return reapply
