"""Classification: one of several classes for every example, by cross-entropy or a loss of one's own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.data import DataSet, Examples
from tombola.data.augment import Augmentation
from tombola.models.tensors import content_sha256
from tombola.training.batches import Batches, draw_batches
from tombola.training.device import CPU, fits
from tombola.training.metrics import Scores, logits_of, predict, scores_of
from tombola.training.task import ACCURACY, Loss, Part, Scored, Task


class Classification(Task):
    """The classes of a data set. A model answers with logits (n, classes), `loss` takes these and targets (n,)."""

    name = "classification"
    compares = ACCURACY

    def __init__(self, data: DataSet, loss: Loss = functional.cross_entropy, *, device: torch.device = CPU) -> None:
        self.data = data
        self.criterion_loss = loss
        self.device = device

    def on(self, device: torch.device) -> Classification:
        """The test examples stay where they are: no training looks at them."""
        if device == self.device:
            return self
        data = self.data
        parts = [tensor for part in (data.train, data.validation) for tensor in (part.inputs, part.targets)]
        if device.type != "cpu" and fits(parts, device):
            train, validation = (
                Examples(part.inputs.to(device), part.targets.to(device)) for part in (data.train, data.validation)
            )
            data = replace(data, train=train, validation=validation)
        moved = copy.copy(self)
        moved.data, moved.device = data, device
        return moved

    def by_loss(self, loss: Loss) -> Classification | None:
        """In the place of the cross-entropy, which a method `loss` of a subclass would pass by."""
        if not self._by_cross_entropy or type(self).loss is not Classification.loss:
            return None
        changed = copy.copy(self)
        changed.criterion_loss = loss
        return changed

    @property
    def plain(self) -> bool:
        """Whether this is what the written-out steps know: the plain cross-entropy, and no subclass, which may have a
        loss, batches or scores of its own."""
        return type(self) is Classification and self._by_cross_entropy

    @property
    def _by_cross_entropy(self) -> bool:
        return self.criterion_loss is functional.cross_entropy

    @property
    def checksum(self) -> str:
        return self.data.checksum

    def identity(self) -> tuple[str, ...]:
        data = self.data
        targets = content_sha256({"train": data.train.targets, "validation": data.validation.targets})
        own = () if self._by_cross_entropy else (name_of(self.criterion_loss),)
        return (data.checksum, str(data.normalisation), targets, *own)

    def arrays(self, part: Part) -> Examples:
        """The examples of a part, as tensors."""
        found: Examples = getattr(self.data, part)
        return found

    def count(self, part: Part) -> int:
        return len(self.arrays(part))

    def batches(self, size: int, seed: int, augmentation: Sequence[Augmentation] = ()) -> Batches:
        return Batches(self.data.train, size, seed, augmentation, self.device)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        inputs, targets = batch
        return self.criterion_loss(logits_of(model, inputs), targets)

    def scores(self, model: nn.Module, part: Part) -> Scored:
        examples = self.arrays(part)
        loss, predicted = predict(model, examples, self.criterion_loss)
        targets = examples.targets.cpu()
        return scored(scores_of(loss, predicted, targets), predicted == targets)

    def scoring(self, size: int, count: int, seed: int) -> list[tuple[Any, Any]]:
        return list(draw_batches(self.data.train, size, count, seed, self.device))

    def inputs(self, count: int, size: int) -> list[Any]:
        found = self.data.train.inputs[:count].to(self.device)
        return list(found.tensor_split(max(1, len(found) // size)))


def as_task(data: DataSet | Task) -> Task:
    """The task itself, or the classification of a data set."""
    return data if isinstance(data, Task) else Classification(data)


def scored(scores: Scores, correct: Tensor) -> Scored:
    """A classifier's scores as those of a task; `correct` (n,) says which answers were right."""
    values = {"accuracy": scores.accuracy, "f1": scores.f1}
    return Scored(scores.loss, values, scores.examples, correct.to(torch.float32))


def name_of(function: Any) -> str:
    """A function as `package.module:function`."""
    return f"{function.__module__}:{getattr(function, '__qualname__', type(function).__name__)}"
