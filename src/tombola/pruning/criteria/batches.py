"""What a batch is: inputs, targets, single examples; and how inputs go into somebody's model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from tombola.errors import PruningError


def inputs_of(batch: Any) -> Any:
    """What of a batch goes into the model."""
    if not _is_plain_sequence(batch) and not _is_named_tuple(batch):
        return batch
    if not batch:
        raise PruningError("a batch is empty: a criterion needs (inputs, targets)")
    return batch[0]


def inputs_and_targets(batch: Any) -> tuple[Any, Any]:
    """The parts of a batch; PruningError when it is no such pair."""
    if not (_is_plain_sequence(batch) or _is_named_tuple(batch)) or len(batch) < 2:
        raise PruningError("the loss needs batches of (inputs, targets): this one has no targets")
    if len(batch) > 2:
        raise PruningError(
            f"the loss needs batches of (inputs, targets): this one has {len(batch)} parts; give several inputs as "
            "((a, b), targets), and what loss= needs beside the targets as (inputs, (targets, more))"
        )
    return batch[0], batch[1]


def own(value: Any, device: torch.device) -> Any:
    """A copy of the tensors within, on the device: a model may write into what it is given. Other things as they are.

    Tuples keep their kind (named ones, packed sequences), and what knows the way to a device goes it.
    """
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True).requires_grad_(value.requires_grad)
    if isinstance(value, PackedSequence):
        data, sizes, *order = value  # the sizes stay on the CPU
        return PackedSequence(own(data, device), sizes, *(own(indices, device) for indices in order))
    if isinstance(value, Mapping):
        return {key: own(part, device) for key, part in value.items()}
    if _is_named_tuple(value):
        return type(value)._make(own(part, device) for part in value)
    if isinstance(value, (tuple, list)):
        return type(value)(own(part, device) for part in value) if _is_plain_sequence(value) else value
    to = getattr(value, "to", None)
    return to(device) if callable(to) and not isinstance(value, type) else value


def call(model: nn.Module, inputs: Any) -> Any:
    """The model's answer. A plain tuple or list is several inputs, a mapping keywords, if the model takes them so."""
    spread: tuple[tuple[Any, ...], dict[str, Any]] = ((inputs,), {})
    if isinstance(inputs, Mapping) and all(isinstance(key, str) for key in inputs):
        spread = ((), dict(inputs))
    elif _is_plain_sequence(inputs):
        spread = (tuple(inputs), {})
    if not _binds(model, *spread) and _binds(model, (inputs,), {}):
        return model(inputs)
    return model(*spread[0], **spread[1])


def examples_of(batch: Any) -> Iterator[Any]:
    """The examples of a batch as batches of one.

    Raises PruningError for what cannot be taken apart: parts of several lengths, tensors whose first axis is no
    example's, objects of other kinds.
    """
    if not isinstance(batch, Mapping):
        inputs_and_targets(batch)  # refuses what is no pair
    counts = set(_counts(batch)) - {1}
    if len(counts) > 1:
        raise PruningError(
            f"fisher takes every example by itself, along the first axis, but the parts of a batch have "
            f"{_listed(sorted(counts))} rows there: put the examples first, or use taylor"
        )
    for index in range(counts.pop() if counts else max(_counts(batch), default=0)):
        yield _example(batch, index)


def _counts(part: Any) -> Iterator[int]:
    """How many examples every tensor within has; numbers have none."""
    if isinstance(part, PackedSequence):
        yield int(part.batch_sizes[0])
    elif isinstance(part, Tensor):
        if part.dim():
            yield len(part)
    elif isinstance(part, (Mapping, tuple, list)):
        for value in part.values() if isinstance(part, Mapping) else part:
            yield from _counts(value)
    elif not isinstance(part, (int, float, complex, str, bytes, type(None))):
        raise PruningError(
            f"fisher takes every example by itself, and a {type(part).__name__} cannot be taken apart: use taylor"
        )


def _example(part: Any, index: int) -> Any:
    """The same structure with one example of every tensor; what has one for all stays as it is."""
    if isinstance(part, PackedSequence):
        return pack_sequence([unpack_sequence(part)[index]])
    if isinstance(part, Tensor):
        return part[index : index + 1] if part.dim() and len(part) > 1 else part
    if isinstance(part, Mapping):
        return {key: _example(value, index) for key, value in part.items()}
    if _is_named_tuple(part):
        return type(part)._make(_example(value, index) for value in part)
    return type(part)(_example(value, index) for value in part) if _is_plain_sequence(part) else part


def _is_plain_sequence(value: Any) -> bool:
    return type(value) in (tuple, list)


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields") and not isinstance(value, PackedSequence)


def _binds(model: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
    try:
        inspect.signature(model.forward).bind(*arguments, **keywords)
    except (TypeError, ValueError):  # ValueError: no signature to be had
        return False
    return True


def _listed(numbers: list[int]) -> str:
    return " and ".join(map(str, numbers[:3]))
