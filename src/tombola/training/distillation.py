"""Learning from a teacher's answers beside the targets: what a pruned network has lost is recovered sooner so."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.data.augment import Augmentation
from tombola.errors import TrainingError
from tombola.models.tensors import content_sha256
from tombola.pruning.copies import copy_of
from tombola.pruning.observe import observed
from tombola.pruning.outputs import main_output
from tombola.pruning.precision import where_float64_is
from tombola.training.code import own_sha256
from tombola.training.device import device_of
from tombola.training.task import BatchSource, Loss, Part, Scored, Task

TEMPERATURE, WEIGHT = 4.0, 0.5


class Distilled(Task):
    """A task that is learned from a teacher as well: (1 - weight) · its loss + weight · the distance to the teacher.

    The distance of logits is T² · KL(teacher ‖ student), both softmax of logits / T, the mean over examples, positions
    and tokens (Hinton, Vinyals & Dean 2015, arXiv 1503.02531); of numbers (`Task.answers`) the mean squared difference.
    Scores are those of the task itself, so that an early stop is chosen by the targets alone.

    Args:
        task: What is learned: any task whose loss calls the model once.
        teacher: A network that answers like the student; a copy of it is kept, in evaluation mode.
        temperature: T, above 0; the larger, the more the teacher's order of wrong answers counts.
        weight: Of the teacher, from 0 (nothing) to 1 (no targets at all).

    Raises:
        TrainingError: for a temperature or a weight outside these, and in training for answers of other shapes.

    Examples:
        >>> from tombola.data import DataConfig, load_data
        >>> from tombola.models import ModelSpec, build
        >>> from tombola.training import Classification
        >>> task = Classification(load_data(DataConfig(name="digits"), 0))
        >>> teacher = build(ModelSpec(input_shape=(1, 8, 8), classes=10, seed=0, widths=(20, 10)))
        >>> Distilled(task, teacher, temperature=2).temperature
        2.0
    """

    def __init__(
        self, task: Task, teacher: nn.Module, temperature: float = TEMPERATURE, weight: float = WEIGHT
    ) -> None:
        if not 0 < temperature < float("inf"):
            raise TrainingError(f"a temperature of {temperature:g}: take a number above 0, such as {TEMPERATURE:g}")
        if not 0 <= weight <= 1:
            raise TrainingError(f"the teacher's weight is {weight:g}: take one from 0 to 1, such as {WEIGHT:g}")
        self.task = task
        self.teacher = copy_of(teacher).eval().requires_grad_(False)
        self.temperature, self.weight = float(temperature), float(weight)
        self.name, self.compares, self.answers = task.name, task.compares, task.answers
        self.criterion_loss = task.criterion_loss

    def by_loss(self, loss: Loss) -> Distilled | None:
        if (task := self.task.by_loss(loss)) is None:
            return None
        changed = copy.copy(self)
        changed.task, changed.criterion_loss = task, task.criterion_loss
        return changed

    @property
    def checksum(self) -> str:
        return self.task.checksum

    def on(self, device: torch.device) -> Distilled:
        if (task := self.task.on(device)) is self.task and device_of(self.teacher) == device:
            return self
        moved = copy.copy(self)
        moved.task = task
        moved.teacher = copy_of(self.teacher).to(device)
        return moved

    def identity(self) -> tuple[str, ...]:
        teacher = content_sha256(self.teacher.state_dict())
        own = own_sha256(self.task)
        return (*self.task.identity(), own, f"distilled {self.temperature} {self.weight} {teacher}")

    def count(self, part: Part) -> int:
        return self.task.count(part)

    def batches(self, size: int, seed: int, augmentation: Sequence[Augmentation] = ()) -> BatchSource:
        return self.task.batches(size, seed, augmentation)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        calls: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []
        with observed([model], lambda _, given, named, found: calls.append((given, named, main_output(found)))):
            loss = self.task.loss(model, batch)
        if len(calls) != 1:
            raise TrainingError(
                f"the loss of {self.name} calls the model {len(calls)} times; to learn from a teacher it has to be once"
            )
        given, named, ours = calls[0]
        with torch.no_grad():
            theirs = main_output(self.teacher(*given, **named))
        return (1 - self.weight) * loss + self.weight * self._distance(ours, theirs)

    def _distance(self, ours: Any, theirs: Any) -> Tensor:
        if not (isinstance(ours, Tensor) and isinstance(theirs, Tensor) and ours.shape == theirs.shape):
            shown = " and ".join(
                str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in (ours, theirs)
            )
            raise TrainingError(f"model and teacher answer differently ({shown}): take a teacher of the same task")
        ours, theirs = ours.float(), theirs.float()
        if self.answers == "numbers":
            return functional.mse_loss(ours, theirs)
        if ours.dim() < 2 or ours.shape[-1] < 2:
            raise TrainingError(
                f"the task {self.name} has logits, it says, and the model gives {tuple(ours.shape)}: set "
                "`answers = 'numbers'` in its class"
            )
        # In float64: softened answers are nearly alike, and the squared temperature multiplies what rounding leaves.
        exact = (where_float64_is(logits).double() / self.temperature for logits in (ours, theirs))
        student, teacher = (logits.flatten(0, -2).log_softmax(1) for logits in exact)
        distance = functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return (self.temperature**2 * distance).to(ours)

    def scores(self, model: nn.Module, part: Part) -> Scored:
        return self.task.scores(model, part)

    def naive(self, part: Part) -> Scored | None:
        return self.task.naive(part)

    def scoring(self, size: int, count: int, seed: int) -> list[tuple[Any, Any]]:
        return self.task.scoring(size, count, seed)

    def inputs(self, count: int, size: int) -> list[Any]:
        return self.task.inputs(count, size)
