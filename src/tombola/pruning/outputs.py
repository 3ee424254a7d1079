"""Which of a model's outputs are its logits, where it gives more than one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

MAIN = ("logits", "out", "main")
"""What models that answer with an object or a mapping call their own output, beside auxiliary ones."""


def main_output(output: Any) -> Any:
    """The logits among what a model gives: a tensor itself, the `logits` or `out` of an object or mapping, the first
    of a tuple or list. What has none of these is given back as it is.

    Auxiliary classifiers of GoogLeNet and Inception come after the main one; answers of transformers have `logits`.
    """
    if isinstance(output, Tensor):
        return output
    for name in MAIN:
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    first = output[0] if isinstance(output, (tuple, list)) and output else None
    return first if isinstance(first, Tensor) else output
