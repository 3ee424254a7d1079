"""What a data set is: examples as tensors, split into training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tombola.errors import DataError
from tombola.runs.seeds import derive_seed


@dataclass(frozen=True)
class Examples:
    """Inputs (n, channels, height, width) float32 and targets (n,) int64."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def at(self, positions: Tensor) -> Examples:
        return Examples(self.inputs[positions], self.targets[positions])


@dataclass(frozen=True)
class RawData:
    """A data set as its source gives it: perhaps with a fixed test set, not yet split by a seed.

    Inputs are scaled to [0, 1]. `checksum` is over the decompressed content, so that it names the data and
    not a file format.
    """

    name: str
    training: Examples
    test: Examples | None
    checksum: str

    def __post_init__(self) -> None:
        for part in (self.training, self.test):
            if part is not None and len(part.inputs) != len(part.targets):
                raise DataError(f"{self.name}: {len(part.inputs)} inputs but {len(part.targets)} labels")
        classes = torch.unique(self.training.targets)
        if len(classes) < 2:
            raise DataError(f"{self.name}: all training labels are the same class; a classifier needs two")

    @property
    def classes(self) -> int:
        """One more than the largest label: labels are 0, 1, ..."""
        parts = [self.training] + ([self.test] if self.test else [])
        return int(max(part.targets.max() for part in parts)) + 1


@dataclass(frozen=True)
class DataSet:
    """A data set split for one replicate. `input_shape` is (channels, height, width)."""

    name: str
    train: Examples
    validation: Examples
    test: Examples
    classes: int
    checksum: str

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.train.inputs.shape[1:])


def split(raw: RawData, seed: int, validation: int, test: int) -> DataSet:
    """A random split by `seed` alone: `validation` examples, `test` examples unless the source has a test set.

    Raises DataError when too little is left to train on or a part would be empty.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "split"))
    order = torch.randperm(len(raw.training), generator=generator)
    held_out = test if raw.test is None else 0
    if len(raw.training) - validation - held_out < 2:
        raise DataError(
            f"{raw.name}: {len(raw.training)} examples are too few for {validation} validation"
            + (f" and {held_out} test examples" if held_out else " examples")
        )
    test_part = raw.test or raw.training.at(order[:held_out])
    validation_part = raw.training.at(order[held_out : held_out + validation])
    if not len(test_part) or not len(validation_part):
        raise DataError(f"{raw.name}: validation and test need at least one example each")
    train = raw.training.at(order[held_out + validation :])
    if len(torch.unique(train.targets)) < 2:
        raise DataError(f"{raw.name}: all training labels are the same class; a classifier needs two")
    return DataSet(raw.name, train, validation_part, test_part, raw.classes, raw.checksum)
