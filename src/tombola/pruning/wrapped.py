"""Wrappers around a model: torch.compile, DataParallel and their kind. They change names, not weights.

`unwrapped` takes them off a model; `matched` finds names again that differ by them alone. Nothing else in Tombola
knows what a wrapper is.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

OWN_SEGMENTS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of a name that only a wrapper makes: of torch.compile, FSDP and activation checkpointing."""
SEGMENTS = OWN_SEGMENTS | {"module"}
"""`module` is what DataParallel, DistributedDataParallel and AveragedModel say, but anybody's model may say it, too."""

BOOKKEEPING = frozenset({"n_averaged"})
"""Buffers that a wrapper keeps beside the model: how many models AveragedModel has averaged."""

_HOLDING_MODULE = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside all wrappers around it; the model itself where there are none."""
    while True:
        inner = model.module if isinstance(model, _HOLDING_MODULE) else _only_child(model)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _only_child(model: nn.Module) -> nn.Module | None:
    """What torch.compile and FSDP hold: the one child, under a name that only they give."""
    children = list(model._modules.items())
    return children[0][1] if len(children) == 1 and children[0][0] in OWN_SEGMENTS else None


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Within the block compiled parts of a model run uncompiled: scoring looks into layers, once or twice."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled; loading it takes seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def without_wrappers(name: str, segments: frozenset[str] = SEGMENTS) -> str:
    """The name that a parameter or buffer has without wrappers anywhere in the model."""
    return ".".join(part for part in name.split(".") if part not in segments)


def matched(wanted: Iterable[str], found: Iterable[str]) -> dict[str, str]:
    """wanted name -> the name in `found` that means the same tensor; what has no such partner is left out.

    Equal names go first. Names that differ by wrappers alone mean the same where nothing else comes to that name.
    """
    wanted, found = list(wanted), list(found)
    known = set(found)
    if all(name in known for name in wanted):
        return {name: name for name in wanted}
    plain_wanted, plain_found = _by_plain_name(wanted), _by_plain_name(found)
    pairs = {}
    for name in wanted:
        plain = without_wrappers(name)
        partners = plain_found.get(plain, [])
        if len(partners) == len(plain_wanted[plain]) == 1:
            pairs[name] = partners[0]
        elif name in known:
            pairs[name] = name
    return pairs


def _by_plain_name(names: Iterable[str]) -> dict[str, list[str]]:
    plain: dict[str, list[str]] = {}
    for name in names:
        plain.setdefault(without_wrappers(name), []).append(name)
    return plain
