"""What a task of somebody's own gives, looked at once before anything is trained, and refused by name where it is odd.

A task is code that we do not know: what is odd about it is cheap to see now, and costs a whole training later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError, TrainingError, one_line_by_name
from tombola.models.tensors import content_sha256
from tombola.pruning.copies import copy_of
from tombola.pruning.surroundings import surroundings_kept
from tombola.training.recipe import Recipe
from tombola.training.task import PARTS, BatchSource, Measure, Part, Scored, Task

COMPARED = 64
"""Examples that are looked at with and without augmentation."""


def check_said(task: Task) -> None:
    """TrainingError where a task does not say what it is: its name, its measure, its data, how many examples."""
    name = getattr(task, "name", None)
    if not isinstance(name, str) or not name:
        raise TrainingError(f"a task of the class {type(task).__name__} has no name: set `name`, a word or two")
    if not isinstance(measure := getattr(task, "compares", None), Measure):
        raise _refused(task, f"compares is {_said(measure)}, not a tombola.training.task.Measure")
    if not isinstance(checksum := task.checksum, str) or not checksum:
        raise _refused(task, f"checksum is {_said(checksum)}, not a text")
    identity: Any = task.identity()
    if isinstance(identity, str) or not isinstance(identity, Sequence) or not all(isinstance(p, str) for p in identity):
        raise _refused(task, f"identity() gives {_said(identity)}, not a tuple of texts")
    for part in PARTS:
        count: Any = task.count(part)
        if not isinstance(count, int):
            raise _refused(task, f"count({part!r}) gives {_said(count)}, not a whole number")
        if count < 1:
            raise _refused(task, f"its {part} part is empty")


def check_batches(task: Task, recipe: Recipe) -> None:
    """TrainingError for batches that are no function of seed and iteration: a run could not be continued."""
    source = task.batches(recipe.batch_size, 0, recipe.augmentation)
    for attribute in ("size", "per_epoch"):
        value = getattr(source, attribute, None)
        if not isinstance(value, int) or value < 1:
            raise _refused(task, f"batches() gives {attribute} = {_said(value)}, not a whole number from 1")
    with surroundings_kept():
        first = _contents(batch_of(task, source))
        torch.rand(1)  # what they must not depend on
        again = _contents(batch_of(task, source))
        other = _contents(batch_of(task, task.batches(recipe.batch_size, 0, recipe.augmentation)))
    if not first == again == other:
        raise _refused(
            task,
            "at(0) of its batches gives other examples each time: draw them by a generator that is seeded with the "
            "seed and the iteration, or a run could not be continued",
        )
    if recipe.augmentation and _ignores_augmentation(task, recipe):
        raise _refused(task, "its batches do not use the augmentation that they are given: leave augmentation out")


def _ignores_augmentation(task: Task, recipe: Recipe) -> bool:
    """Whether batches are the same without it; several of few examples, which chance may leave as they are."""
    with surroundings_kept():
        augmented = task.batches(recipe.batch_size, 0, recipe.augmentation)
        plain = task.batches(recipe.batch_size, 0)
        count = math.ceil(COMPARED / augmented.size)
        pairs = ([_contents(batch_of(task, source, i)) for source in (augmented, plain)] for i in range(count))
        return all(with_it == without for with_it, without in pairs)


def batch_of(task: Task, source: BatchSource, iteration: int = 0) -> Any:
    """The batch of an iteration; TrainingError with the task's name where it fails."""
    try:
        return source.at(iteration)
    except (TombolaError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise _refused(task, f"at({iteration}) of its batches fails: {one_line_by_name(error)}") from error


def check_loss(loss: Any, said: str) -> None:
    """TrainingError for a first loss that nothing can be learned from; `said` is whose it is."""
    if not isinstance(loss, Tensor):
        raise TrainingError(f"the loss of {said} is {_said(loss)}: it has to be a tensor of one number")
    if loss.numel() != 1:
        raise TrainingError(f"the loss of {said} has the shape {tuple(loss.shape)}: take its mean, one number")
    if not loss.requires_grad:
        raise TrainingError(f"the loss of {said} has no gradient: it, or the network, detaches what it computes")
    if not math.isfinite(value := loss.item()):
        raise TrainingError(
            f"the loss of {said} is {value} on the first batch, before anything is learned: look at the loss, the data "
            "and the initial weights"
        )


def check_scores(task: Task, network: nn.Module) -> Scored:
    """The scores on the validation part. TrainingError for scores that no table can hold, or that change a weight."""
    tried = copy_of(network)
    before = content_sha256(tried.state_dict())
    with surroundings_kept():
        scores = task.scores(tried, "validation")
    if content_sha256(tried.state_dict()) != before:
        raise _refused(task, "scores() changes the network that it scores")
    _check_scored(task, scores, "scores", "validation")
    naive = task.naive("validation")
    if naive is not None:
        _check_scored(task, naive, "naive", "validation")
    return scores


def _check_scored(task: Task, scores: Any, method: str, part: Part) -> None:
    where = f"{method}({part!r})" if method == "naive" else f"{method}(model, {part!r})"
    if not isinstance(scores, Scored):
        raise _refused(task, f"{where} gives {_said(scores)}, not a tombola.training.task.Scored")
    if not isinstance(scores.values, Mapping):
        raise _refused(task, f"{where} has values that are {_said(scores.values)}, not numbers by name")
    for name, value in {"loss": scores.loss, **scores.values}.items():
        if not isinstance(value, (int, float)):
            raise _refused(task, f"{where} has the {name} {_said(value)}: give a number, float(...)")
    if not isinstance(scores.examples, int):
        raise _refused(task, f"{where} has examples = {_said(scores.examples)}, not a whole number")
    each = scores.each
    if each is not None and (not isinstance(each, Tensor) or tuple(each.shape) != (scores.examples,)):
        shown = f"of the shape {tuple(each.shape)}" if isinstance(each, Tensor) else _said(each)
        raise _refused(task, f"{where} has `each` {shown}: give one number for each of its {scores.examples} examples")


def _contents(batch: Any) -> list[Any]:
    """What of a batch can be compared; tensors as they are now, since the next call may reuse their memory."""
    if isinstance(batch, Tensor):
        return [content_sha256({"": batch.detach().cpu()})]
    if isinstance(batch, Mapping):
        return [part for key, value in batch.items() for part in (key, *_contents(value))]
    if isinstance(batch, (list, tuple)):
        return [part for value in batch for part in _contents(value)]
    if callable(to_dict := getattr(batch, "to_dict", None)):  # of PyTorch Geometric
        return _contents(to_dict())
    return [batch] if isinstance(batch, (int, float, str)) else []


def _said(value: Any) -> str:
    kind = type(value).__name__
    return "None" if value is None else f"a {kind}" if not isinstance(value, (int, float, str)) else f"{value!r}"


def _refused(task: Task, what: str) -> TrainingError:
    return TrainingError(f"the task {getattr(task, 'name', type(task).__name__)}: {what}")
