"""What a lottery is about: the classes of a data set, or a task of somebody's own; and what it asks of a network.

A task is made by a function that the config names, or is held by the Python program that called `find_ticket`. What is
read of a run later (its measure, its sizes) is recorded in the manifest, so that whoever looks calls no code.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import ConfigError, DataError, TrainingError, one_line_by_name
from tombola.models.config import Spec
from tombola.models.factory import own_function
from tombola.models.own import Try, initial_network
from tombola.models.spec import Normalisation
from tombola.pruning import Masks
from tombola.pruning.copies import copy_of
from tombola.pruning.modes import evaluation_mode
from tombola.pruning.surroundings import surroundings_kept
from tombola.studies.lottery.config import LotteryConfig, TaskConfig
from tombola.studies.lottery.networks import model_spec, replicate_data
from tombola.training.classification import Classification
from tombola.training.code import digest_of, own_sha256
from tombola.training.engine import layers_on_kernels
from tombola.training.own import with_own_loss
from tombola.training.task import Scored, Task
from tombola.training.tried import batch_of, check_batches, check_loss, check_said, check_scores

_held: dict[str, Task] = {}


@contextlib.contextmanager
def holding(task: Task | None) -> Iterator[None]:
    """Within the block a config may name `task`, an object of this process, by the name that it has itself."""
    before = dict(_held)
    if task is not None:
        _held[task.name] = task
    try:
        yield
    finally:
        _held.clear()
        _held.update(before)


def task_of(config: LotteryConfig, index: int, data_dir: Path | None, recorded: str | None = None) -> Task:
    """What replicate `index` learns. A task of one's own comes with its split, which all replicates share.

    DataError where its data are not those of the checksum `recorded` by the run.
    """
    if config.task is None:
        return Classification(replicate_data(config, index, data_dir, recorded))
    task = own_task(config.task)
    if recorded is not None and task.checksum != recorded:
        raise DataError(
            f"the task {config.task.title} has other data than the run began with: recorded {recorded}, now "
            f"{task.checksum}; let it give the same, or begin another run with --out"
        )
    return task


def own_task(config: TaskConfig) -> Task:
    """The task of a config; ConfigError in one line where there is none."""
    if config.held is not None:
        if config.held not in _held:
            raise ConfigError(
                f"task: {config.held!r} was an object of a Python program, which no config can make again: call "
                "find_ticket with it, or name a function that makes it (task.factory)"
            )
        return _held[config.held]
    assert config.factory is not None, "one of the two is there"
    function = own_function(config.factory)
    try:
        made = function()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"task: {config.factory}() failed: {one_line_by_name(error)}") from None
    if not isinstance(made, Task):
        raise ConfigError(f"task: {config.factory}() gave a {type(made).__name__}, not a tombola.training.Task")
    return made


def shape_of(task: Task) -> tuple[tuple[int, ...], int] | None:
    """The shape of an example and the number of classes, of a task that has both."""
    return (task.data.input_shape, task.data.classes) if isinstance(task, Classification) else None


def plain_examples(task: Task, count: int) -> Tensor | None:
    """The inputs of the first `count` training examples, where they are tensors of one shape; else None."""
    found = task.inputs(count, count)
    if not all(isinstance(part, Tensor) and part.dim() for part in found):
        return None
    shapes = {(tuple(part.shape[1:]), part.dtype) for part in found}
    return torch.cat(found) if len(shapes) == 1 else None


def tried_on(task: Task) -> Tensor | Try:
    """What somebody's own network is tried on."""
    if isinstance(task, Classification):
        return task.data.train.inputs
    return lambda model: task.loss(model, batch_of(task, task.batches(2, 0)))


def spec_of(config: LotteryConfig, index: int, task: Task) -> Spec:
    """The spec of a replicate's network, whole."""
    spec = model_spec(config, index, *(shape_of(task) or (None, None)))
    if not isinstance(task, Classification):
        return spec
    return spec.model_copy(update={"normalisation": Normalisation(**asdict(task.data.normalisation))})


def task_facts(config: LotteryConfig, task: Task) -> dict[str, Any]:
    """What the manifest says of a task of one's own; everything that cannot be run is refused, in one line."""
    _check_trainable(config, task)
    spec = spec_of(config, 0, task)
    network = initial_network(spec, tried_on(task))
    _check_first_loss(config, task, network)
    layers_on_kernels(network, config.training, Masks.full(network), config.training.batch_size, task=task)
    facts: dict[str, Any] = {
        "name": config.subject,
        "checksum": task.checksum,
        "training_examples": task.count("train"),
        "task": task.name,
        "compares": asdict(task.compares),
        "measures": _measures(task, network),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    shape = shape_of(task)
    return facts if shape is None else facts | {"input_shape": list(shape[0]), "classes": shape[1]}


def task_sha256(task: Task) -> str:
    """Equal for tasks that teach the same, in the same split and by the same code: what a run is continued on."""
    check_said(task)
    return digest_of([task.name, *task.identity(), own_sha256(task)])


def _check_trainable(config: LotteryConfig, task: Task) -> None:
    check_said(task)
    measure = task.compares
    if "tolerance" not in config.model_fields_set and measure.unit != "points":
        unit = measure.unit or f"the unit of {measure.name}"
        raise ConfigError(
            f"tolerance: say how much worse a ticket may be in {measure.name} and still match, in {unit}: there is "
            f"no default for the task {task.name}"
        )
    try:
        check_batches(with_own_loss(task, config.training), config.training)
        if config.training.device != "cpu":
            task.on(torch.device(config.training.device))
    except TrainingError as error:
        raise ConfigError(f"training: {error}") from None


def _check_first_loss(config: LotteryConfig, task: Task, network: nn.Module) -> None:
    learned, tried = with_own_loss(task, config.training), copy_of(network)
    with surroundings_kept(), evaluation_mode(tried), torch.enable_grad():
        batch = batch_of(learned, learned.batches(2, 0))
        check_loss(learned.loss(tried, batch), f"the task {task.name}")


def _measures(task: Task, network: nn.Module) -> list[str]:
    """The measures of a task by name, in their order; ConfigError for a task that lacks the one it compares by."""
    values = dict(check_scores(task, network).values)
    if task.compares.name not in values:
        raise ConfigError(
            f"task: {task.name} compares networks by {task.compares.name!r}, and its scores have "
            f"{', '.join(values) or 'no values'}"
        )
    if odd := {"loss", "examples", "each"} & set(values):
        raise ConfigError(f"task: {task.name} calls a measure {odd.pop()!r}, which rows call something else")
    if not all(isinstance(name, str) and name.isidentifier() for name in values):
        raise ConfigError(f"task: {task.name} has a measure whose name is no word: {', '.join(map(str, values))}")
    return list(values)


def check_finite(scores: Scored, task: Task, part: str) -> None:
    """TrainingError for a measure that no row can hold."""
    for name, value in {"loss": scores.loss, **scores.values}.items():
        if not math.isfinite(value):
            raise TrainingError(f"{part} {name} is {value} after training: the task {task.name} gives no number there")
