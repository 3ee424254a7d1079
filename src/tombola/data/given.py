"""Examples that Python code hands over: tensors, arrays, torch data sets and loaders, read once into memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from tombola.data.dataset import DataSet, Examples, Normalisation
from tombola.errors import DataError, one_line
from tombola.runs import limits

PARTS = ("training", "validation", "test")


def given_parts(data: DataSet | Sequence[Any]) -> tuple[Examples, Examples, Examples]:
    """Training, validation and test examples of a DataSet, or of three things that `given_examples` takes.

    Raises DataError for anything else.
    """
    if isinstance(data, DataSet):
        if data.normalisation != Normalisation():
            raise DataError(
                f"{data.name}: its inputs are normalised already, and a model made of them would not know by what: "
                "give the DataConfig that says `normalise`, or the data before"
            )
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
    or a DataLoader (batches). All examples are taken, in the order of the data set: what a loader shuffles or drops is
    of no account. They are read once, so that random changes of them are those of that once. Raises DataError for what
    is none of these, for loaders that sample in ways of their own, and past `limits.DATA` bytes.
    """
    if isinstance(part, Examples):
        return part
    if isinstance(part, (tuple, list)) and len(part) == 2 and all(_is_array(each) for each in part):
        return _examples(_tensor(part[0]), _tensor(part[1]), name)
    if isinstance(part, DataLoader):
        part = _in_order(part, name)
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    size = 0
    batched = isinstance(part, DataLoader) and part.batch_size is not None
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
        raise DataError(f"{name}: is empty")
    try:
        return _examples(torch.cat(inputs), torch.cat(targets), name)
    except RuntimeError as error:
        raise DataError(f"{name}: its examples differ in shape: {one_line(error, 200)}") from None


def _in_order(loader: DataLoader[Any], name: str) -> DataLoader[Any]:
    """A loader of all of its data set, in order; that of a stream as it comes."""
    if isinstance(loader.dataset, IterableDataset):
        return loader
    plain = isinstance(loader.sampler, (SequentialSampler, RandomSampler))
    if not plain or getattr(loader.sampler, "replacement", False):
        raise DataError(
            f"{name}: the loader samples by {type(loader.sampler).__name__}; give the data set itself, or a "
            "torch.utils.data.Subset of it"
        )
    return DataLoader(loader.dataset, batch_size=loader.batch_size, collate_fn=loader.collate_fn)


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
    if inputs.is_complex():
        raise DataError(f"{name}: inputs are complex numbers; give their parts as channels")
    if targets.is_floating_point() or targets.is_complex() or targets.dim() != 1:
        raise DataError(f"{name}: targets are {targets.dtype} of shape {tuple(targets.shape)}, not classes (n,)")
    if len(inputs) != len(targets):
        raise DataError(f"{name}: {len(inputs)} inputs but {len(targets)} targets")
    if not inputs.numel():
        raise DataError(f"{name}: is empty, its inputs have the shape {tuple(inputs.shape)}")
    return Examples(inputs.to(torch.float32).contiguous(), targets.to(torch.int64).contiguous())
