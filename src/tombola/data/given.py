"""Examples that Python code hands over: tensors, arrays, torch data sets and loaders, read once into memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tombola.data.dataset import DataSet, Examples
from tombola.errors import DataError, one_line
from tombola.runs import limits

PARTS = ("training", "validation", "test")


def given_parts(data: DataSet | Sequence[Any]) -> tuple[Examples, Examples, Examples]:
    """Training, validation and test examples of a DataSet, or of three things that `given_examples` takes.

    Raises DataError for anything else.
    """
    if isinstance(data, DataSet):
        return data.train, data.validation, data.test
    if not isinstance(data, (tuple, list)) or len(data) != 3:
        raise DataError(
            "data are a name, a DataConfig, a DataSet, or three parts (training, validation, test): each of them "
            "(inputs, targets), a torch data set or a loader"
        )
    train, validation, test = (given_examples(part, name) for part, name in zip(data, PARTS, strict=True))
    return train, validation, test


def given_examples(part: Any, name: str = "data") -> Examples:
    """Inputs (n, ...) as float32 and targets (n,) as int64, in the order in which they come.

    `part` is Examples, a pair of tensors or arrays, or something that yields pairs: a torch data set (single examples)
    or a DataLoader (batches). It is gone through once, so that random changes of its examples are those of that once.
    Raises DataError for what is none of these, and past `limits.DATA` bytes.
    """
    if isinstance(part, Examples):
        return part
    if isinstance(part, (tuple, list)) and len(part) == 2 and all(_is_array(each) for each in part):
        return _examples(_tensor(part[0]), _tensor(part[1]), name)
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    size = 0
    batched = isinstance(part, torch.utils.data.DataLoader) and part.batch_size is not None
    for pair in _pairs(part, name):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise DataError(f"{name}: yields {type(pair).__name__} and not pairs of (input, target)")
        one, target = (_tensor(each) for each in pair)
        inputs.append(one if batched else one[None])
        targets.append(target if batched else target[None])
        size += one.numel() * 4
        if size > limits.DATA:
            raise DataError(f"{name}: more than {limits.DATA:,} bytes of inputs; a study reads its data into memory")
    if not inputs:
        raise DataError(f"{name}: holds no examples")
    try:
        return _examples(torch.cat(inputs), torch.cat(targets), name)
    except RuntimeError as error:
        raise DataError(f"{name}: its examples differ in shape: {one_line(error, 200)}") from None


def _pairs(part: Any, name: str) -> Iterable[Any]:
    """A torch data set counts its examples by `len`, and may know no end otherwise."""
    if isinstance(part, Iterable) and not hasattr(part, "__getitem__"):
        return part
    if hasattr(part, "__getitem__") and hasattr(part, "__len__"):
        return (part[index] for index in range(len(part)))
    raise DataError(f"{name}: {type(part).__name__} is no pair of (inputs, targets), no torch data set and no loader")


def _is_array(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray))


def _tensor(value: Any) -> Tensor:
    return torch.as_tensor(value).detach().cpu()


def _examples(inputs: Tensor, targets: Tensor, name: str) -> Examples:
    if targets.is_floating_point() or targets.is_complex() or targets.dim() != 1:
        raise DataError(f"{name}: targets are {targets.dtype} of shape {tuple(targets.shape)}, not classes (n,)")
    if len(inputs) != len(targets):
        raise DataError(f"{name}: {len(inputs)} inputs but {len(targets)} targets")
    return Examples(inputs.to(torch.float32).contiguous(), targets.to(torch.int64).contiguous())
