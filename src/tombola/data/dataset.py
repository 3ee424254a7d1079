"""What a data set is: examples as tensors, split into training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tombola.data.layout import some
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

    def first(self, count: int) -> Examples:
        return Examples(self.inputs[:count], self.targets[:count])


@dataclass(frozen=True)
class RawData:
    """A data set as its source gives it: perhaps with a fixed test set, not yet split by a seed.

    Inputs are scaled to [0, 1]. `checksum` is over the decompressed content, so that it names the data and
    not a file format. `groups` (training examples,) int64: examples of the same number are never split from each
    other. The last `validation` of the training examples are the validation part of every split, where a data set
    comes with one. `skipped` names what was left out because it could not be read, `notes` are sentences on what else
    a person has to know of how the data were read.
    """

    name: str
    training: Examples
    test: Examples | None
    checksum: str
    groups: Tensor | None = None
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    validation: int = 0

    def __post_init__(self) -> None:
        for part in (self.training, self.test):
            if part is not None and len(part.inputs) != len(part.targets):
                raise DataError(f"{self.name}: {len(part.inputs)} inputs but {len(part.targets)} labels")
        assert not self.validation or self.test is not None, "who brings the one brings the other"
        if self.groups is not None and self.groups.shape != self.training.targets.shape:
            raise DataError(f"{self.name}: {len(self.training)} examples but groups of {tuple(self.groups.shape)}")
        classes = torch.unique(self.training.targets)
        if len(classes) < 2:
            raise DataError(f"{self.name}: all training labels are the same class; a classifier needs two")
        if len(self._absent) > self.classes - len(self._absent):
            raise DataError(
                f"{self.name}: labels up to {self.classes - 1:,} make {self.classes:,} outputs, {len(self._absent):,} "
                "of which have no example; number the classes 0, 1, 2, ..."
            )

    @property
    def classes(self) -> int:
        """One more than the largest label: labels are 0, 1, ..."""
        return int(self._labels[-1]) + 1

    @property
    def said(self) -> tuple[str, ...]:
        """All that a person has to know of how the data were read, a sentence each: what was left out, first of all."""
        left_out = f"left out what cannot be read ({len(self.skipped)}): {some(self.skipped)}"
        absent = f"no example of class {some([str(label) for label in self._absent])}, which has an output all the same"
        return (*([left_out] if self.skipped else ()), *self.notes, *([absent] if self._absent else ()))

    @cached_property
    def _labels(self) -> Tensor:
        """Those that there are, in order."""
        return torch.unique(torch.cat([part.targets for part in (self.training, self.test) if part is not None]))

    @cached_property
    def _absent(self) -> list[int]:
        there = torch.zeros(self.classes, dtype=torch.bool)
        there[self._labels] = True
        return torch.nonzero(~there).flatten().tolist()


@dataclass(frozen=True)
class Normalisation:
    """Inputs in [0, 1] became (input - mean) / std, in float32: one number per channel, or one for all.

    A model's spec records it (`tombola.models.spec.Normalisation`, which also validates what it reads).
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class DataSet:
    """A data set split for one replicate. `input_shape` is (channels, height, width).

    The inputs of all three parts are as `normalisation` left them; by default it left them in [0, 1]. `said` is that
    of its raw data.
    """

    name: str
    train: Examples
    validation: Examples
    test: Examples
    classes: int
    checksum: str
    normalisation: Normalisation = field(default_factory=Normalisation)
    said: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.train.inputs.shape[1:])


def recorded(data: RawData | DataSet) -> dict[str, Any]:
    """What a run's manifest says of its data: name, checksum and, where there is something, what was left out."""
    facts: dict[str, Any] = {"name": data.name, "checksum": data.checksum}
    return facts | ({"said": list(data.said)} if data.said else {})


def split(
    raw: RawData, seed: int, validation: int, test: int, normalise: bool = False, training: int | None = None
) -> DataSet:
    """A random split by `seed` alone: `validation` examples unless the source has them, and so for `test`.

    The rest is to train on, or with `training` only the first so many of it: fewer are always part of more, and the
    other two parts stay the same. Where `raw` has groups, whole groups go to test until it has that many examples
    or more, then to validation, in an order that the seed draws. With `normalise`, all three parts are normalised by
    the training part, channel by channel. Raises DataError when too little is left to train on, less than `training`
    asks for, a part would be empty, or a channel that is normalised is constant.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "split"))
    order = torch.randperm(len(raw.training) - raw.validation, generator=generator)
    if raw.validation:
        validation = raw.validation
        order = torch.cat([torch.arange(len(order), len(order) + validation), order])
    held_out = test if raw.test is None else 0
    if len(raw.training) - validation - held_out < 2:
        raise DataError(
            f"{raw.name}: {len(raw.training)} examples are too few for {validation} validation"
            + (f" and {held_out} test examples" if held_out else " examples")
        )
    if raw.groups is not None:
        order, held_out, validation = _by_groups(raw, order, held_out, validation, generator)
    test_part = raw.test or raw.training.at(order[:held_out])
    validation_part = raw.training.at(order[held_out : held_out + validation])
    if not len(test_part) or not len(validation_part):
        raise DataError(f"{raw.name}: validation and test need at least one example each")
    left = order[held_out + validation :]
    if training is not None and training > len(left):
        raise DataError(
            f"{raw.name}: {training} training examples are asked for, but {len(left)} are left beside {validation} "
            "validation" + (f" and {held_out} test examples" if held_out else " examples")
        )
    train = raw.training.at(left[:training])
    if len(torch.unique(train.targets)) < 2:
        raise DataError(f"{raw.name}: all training labels are the same class; a classifier needs two")
    if not normalise:
        return DataSet(raw.name, train, validation_part, test_part, raw.classes, raw.checksum, said=raw.said)
    normalisation = _of_training(raw.name, train.inputs)
    parts = (_normalised(part, normalisation) for part in (train, validation_part, test_part))
    train, validation_part, test_part = parts
    return DataSet(raw.name, train, validation_part, test_part, raw.classes, raw.checksum, normalisation, raw.said)


def _by_groups(
    raw: RawData, order: Tensor, held_out: int, validation: int, generator: torch.Generator
) -> tuple[Tensor, int, int]:
    """`order` with whole groups first, and how many examples of it are for test and for validation.

    What is left to train on stays in the order in which it was drawn, so that its first examples are of many groups.
    """
    _, numbers = torch.unique(raw.groups, return_inverse=True)
    sizes = torch.bincount(numbers)
    drawn = torch.randperm(len(sizes), generator=generator)
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), sizes[drawn].cumsum(0)])
    to_test = int(torch.searchsorted(ends, held_out))
    to_validation = int(torch.searchsorted(ends, int(ends[to_test]) + validation))
    if to_validation >= len(sizes) or len(raw.training) - int(ends[to_validation]) < 2:
        raise DataError(
            f"{raw.name}: {len(sizes)} groups, the largest of {int(sizes.max())} examples, are too few or too large "
            f"for {validation} validation" + (f" and {held_out} test examples" if held_out else " examples") + " and a "
            "rest to train on; ask for fewer, or take a data.group_by of smaller groups"
        )
    part_of_group = torch.empty_like(drawn)
    for part, groups in enumerate(drawn.tensor_split([to_test, to_validation])):
        part_of_group[groups] = part
    part_of = part_of_group[numbers[order]]
    parts = [order[part_of == part] for part in range(3)]
    return torch.cat(parts), len(parts[0]), len(parts[1])


def normalised(data: DataSet, normalisation: Normalisation) -> DataSet:
    """Data, whose inputs are in [0, 1], with inputs as a model of this normalisation wants them.

    Args:
        data: Its inputs are not changed.
        normalisation: (input - mean) / std, for a number a channel or one for all.

    Returns:
        DataSet: other inputs, the same targets and parts.

    Examples:
        >>> from tombola.data import DataConfig, load_data
        >>> data = normalised(load_data(DataConfig(name="digits"), seed=0), Normalisation((0.5,), (0.5,)))
        >>> float(data.train.inputs.min()), float(data.train.inputs.max())
        (-1.0, 1.0)
    """
    if normalisation == Normalisation():
        return data
    train, validation, test = (_normalised(part, normalisation) for part in (data.train, data.validation, data.test))
    return DataSet(data.name, train, validation, test, data.classes, data.checksum, normalisation, data.said)


def _of_training(name: str, inputs: Tensor) -> Normalisation:
    """Mean and standard deviation (of the population: divided by n) per channel, summed up in float64."""
    values = inputs.flatten(2)
    for channel, (least, most) in enumerate(zip(values.amin((0, 2)), values.amax((0, 2)), strict=True)):
        if least == most:  # rounding would hide this from the deviation
            raise DataError(f"{name}: channel {channel} has one value in all training inputs; set normalise to false")
    count = values.shape[0] * values.shape[2]
    chunks = values.split(64)  # float64 of all inputs at once would be twice their memory
    mean = torch.stack([chunk.double().sum(2).sum(0) for chunk in chunks]).sum(0) / count
    squares = [(chunk.double() - mean[:, None]).square_().sum(2).sum(0) for chunk in chunks]
    std = (torch.stack(squares).sum(0) / count).sqrt()
    return Normalisation(mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def _normalised(part: Examples, normalisation: Normalisation) -> Examples:
    shape = [-1 if axis == 1 else 1 for axis in range(part.inputs.dim())]
    mean, std = (torch.tensor(values).view(shape) for values in (normalisation.mean, normalisation.std))
    return Examples(part.inputs.sub(mean).div_(std), part.targets)
