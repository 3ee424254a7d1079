"""What a network learns: its batches, its loss and its scores. `fit` knows nothing else about it.

A task holds its data already split. `classification` has the one of images and features. How steps are computed, and
how masks are held, is no part of a task.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from tombola.data.augment import Augmentation
from tombola.errors import TombolaError, TrainingError, one_line_by_name

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
METHODS = {"checksum", "on", "identity", "count", "batches", "loss", "scores", "naive", "scoring", "inputs"}
Loss = Callable[[Any, Any], Tensor]
"""(what the model gives, targets) -> the mean loss, one number."""


@dataclass(frozen=True)
class Measure:
    """A number of a network on examples. Shown as `scale` times the number, in `unit`s, under its `title`.

    The `name` is that of its columns in the rows; without a title it is shown by its name.
    """

    name: str
    higher_is_better: bool
    scale: float = 1.0
    unit: str = ""
    title: str = ""

    @property
    def words(self) -> str:
        """What a sentence or a column calls it."""
        return self.title or self.name


ACCURACY = Measure("accuracy", higher_is_better=True, scale=100, unit="points")
"""The fraction of right answers. Whoever counts them compares by this one: reports know it by its being equal."""


@dataclass(frozen=True)
class Scored:
    """A network on some examples: the mean loss and further measures by name.

    `each` is one number an example (count,), in the order of the examples: what another network's are paired with.
    """

    loss: float
    values: Mapping[str, float]
    examples: int
    each: Tensor | None = None

    @property
    def accuracy(self) -> float:
        """The fraction of right answers, of tasks that have some."""
        return self.values["accuracy"]


class BatchSource(Protocol):
    """Training batches of at most `size` examples; all examples are met once in `per_epoch` of them."""

    size: int
    per_epoch: int

    def at(self, iteration: int) -> Any:
        """The batch of an iteration, perhaps in memory that the next call reuses."""


class Task(ABC):
    """Data, split into parts, and what is to be learned from them.

    Everything is a pure function of the arguments: batches of the seed and the iteration, scores of the weights. What
    goes wrong in a method of somebody's own class is a TrainingError, which names task and method.
    """

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        if cls.__module__.partition(".")[0] == "tombola":
            return
        for method in METHODS & vars(cls).keys():
            setattr(cls, method, _named(cls, method, vars(cls)[method]))

    name: str
    """As messages say it: "classification"."""
    compares: Measure
    """What networks are compared by. An early stop is selected by the loss, the lower the better."""
    criterion_loss: Loss
    """The loss of what a model gives, for `prune(loss=)`."""
    answers: Literal["logits", "numbers"] = "logits"
    """What a model's main output is: logits along its last axis, or numbers. A teacher's are compared accordingly."""

    @property
    @abstractmethod
    def checksum(self) -> str:
        """Of the data, before they were split."""

    def on(self, device: torch.device) -> Task:
        """The same task with batches on `device`, to which data that fit there are moved; itself where it is there
        already. TrainingError where it cannot be there."""
        if device.type == "cpu":
            return self
        raise TrainingError(
            f"the task {self.name} is for the CPU, and this training is on {device.type}: give its class a method "
            "`on(device)`, or set the device to cpu"
        )

    @abstractmethod
    def identity(self) -> tuple[str, ...]:
        """Equal for two tasks of one class exactly where the same training of both ends with the same weights.

        The code of a class of one's own need not be in it, nor attributes without a leading underscore: these are
        looked at beside (`code.own_sha256`), and must not change while a network learns.
        """

    @abstractmethod
    def count(self, part: Part) -> int:
        """How many examples a part has."""

    @abstractmethod
    def batches(self, size: int, seed: int, augmentation: Sequence[Augmentation] = ()) -> BatchSource:
        """Training batches in an order that `seed` draws: a whole number below 2**63, as `torch.manual_seed` takes."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The mean loss of a batch, one float32 number with a gradient."""

    @abstractmethod
    def scores(self, model: nn.Module, part: Part) -> Scored:
        """The model on a part, in evaluation mode; modes are as before afterwards."""

    def by_loss(self, loss: Loss) -> Task | None:
        """The same task learned by another loss; None where its own stays."""
        return None

    def naive(self, part: Part) -> Scored | None:
        """The scores on a part of who answers all examples alike, as well as that can be done.

        A network that is no better learned nothing, and one whose loss on the training part is a multiple of this one
        there diverged. None where the task has no such answer.
        """
        return None

    @abstractmethod
    def scoring(self, size: int, count: int, seed: int) -> list[tuple[Any, Any]]:
        """`count` batches (inputs, targets) in memory of their own, not augmented, for criteria that look at data."""

    @abstractmethod
    def inputs(self, count: int, size: int) -> list[Any]:
        """The inputs of the first `count` training examples, about `size` at a time."""


def _named(cls: type, method: str, found: Any) -> Any:
    """`found`, an attribute of a class, with errors that say where they come from."""
    if isinstance(found, property):
        return found if found.fget is None else property(_named(cls, method, found.fget), found.fset, found.fdel)
    if isinstance(found, functools.cached_property):
        cached: functools.cached_property[Any] = functools.cached_property(_named(cls, method, found.func))
        cached.__set_name__(cls, method)
        return cached
    if not callable(found):
        return found

    @functools.wraps(found)
    def called(self: Task, *given: Any, **named: Any) -> Any:
        try:
            return found(self, *given, **named)
        except (TombolaError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            name = getattr(self, "name", cls.__name__)
            raise TrainingError(f"the task {name}: {method} fails: {one_line_by_name(error)}") from error

    return called


def without_augmentation(task: Task, augmentation: Sequence[Augmentation]) -> None:
    """Raises TrainingError, by name, for augmentation of what is no image."""
    if augmentation:
        raise TrainingError(f"augmentation is for images, this task is {task.name}: leave {augmentation[0]!r} out")
