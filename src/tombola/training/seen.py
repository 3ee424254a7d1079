"""Whether what somebody's optimizer keeps has changed, by its contents, as far as one can look into them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import cache
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from tombola.models.tensors import content_sha256

PLAIN = (bool, int, float, complex, str, bytes, Enum, torch.dtype, torch.device, type(None))
"""Types whose `repr` says all about a value."""

CHECKED = "_need_device_dtype_check_for_fused"
"""An attribute of torch's fused optimizers: whether they have yet to check what they would check again."""


def seen_in_groups(optimizer: torch.optim.Optimizer, known: Mapping[int, int]) -> list[dict[str, Any]]:
    """The contents of its groups but for parameters and rates."""
    return [
        {key: seen(value, known) for key, value in group.items() if key not in ("params", "lr")}
        for group in optimizer.param_groups
    ]


def seen_beside(optimizer: torch.optim.Optimizer, known: Mapping[int, int]) -> dict[str, Any]:
    """The contents of its attributes but for those that every optimizer has."""
    own = vars(optimizer).keys() - _of_every_optimizer() - {CHECKED}
    return {name: seen(getattr(optimizer, name), known) for name in sorted(own)}


@cache
def _of_every_optimizer() -> frozenset[str]:
    # A class with a `step` of its own: torch wraps that of a class whose first object it makes.
    bare = type("Bare", (torch.optim.Optimizer,), {"step": lambda optimizer: None})
    return frozenset(vars(bare([nn.Parameter(torch.zeros(1))], {})))


def seen(value: Any, known: Mapping[int, int]) -> Any:
    """Something that is equal, within one process, as long as the contents of `value` are.

    What cannot be looked into is in it as its type. `known` objects, by their id, are looked after by somebody else.
    """
    if id(value) in known:
        return f"known {known[id(value)]}"
    if isinstance(value, Tensor):
        return content_sha256({"": value})
    if isinstance(value, dict):
        return [(seen(key, known), seen(part, known)) for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        return [seen(part, known) for part in value]
    if isinstance(value, (set, frozenset)):
        return sorted((seen(part, known) for part in value), key=repr)
    if isinstance(value, PLAIN):
        return repr(value)
    without_contents = isinstance(value, FunctionType) and value.__closure__ is None
    if without_contents or isinstance(value, (BuiltinFunctionType, type)):
        return f"{value!r} at {id(value)}"
    return type(value)


def unseen(found: Any) -> str | None:
    """The name of a type that `seen` could not look into; None where it saw everything."""
    if isinstance(found, type):
        return found.__name__
    parts = found if isinstance(found, (list, tuple)) else ()
    return next((name for part in parts if (name := unseen(part)) is not None), None)
