"""Numbers of numpy and torch as Python's own."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor


def plain(value: Any) -> Any:
    """A scalar of numpy, or an array or tensor without axes, as the number that it holds; anything else as it is.

    A loop over `np.linspace` or a sum of tensors gives such numbers. A tensor of truth values gives a bool, as numpy's.
    """
    if isinstance(value, np.generic):
        return value.item()
    return value.item() if isinstance(value, (np.ndarray, Tensor)) and not value.ndim else value
