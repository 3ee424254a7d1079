"""How long a training takes on this machine, for what a study says of its cost before it runs."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from tombola.data import DataConfig, DataSet, load_raw
from tombola.pruning import Masks
from tombola.pruning.copies import copy_of
from tombola.training import Recipe
from tombola.training.device import finish, placed
from tombola.training.threads import one_thread
from tombola.training.training import Training

SAMPLE_SECONDS, QUICK_SECONDS = 2.0, 0.3
"""How long iterations are timed for a whole plan, and for one line before a run."""
FEWEST = 5
"""Iterations that are timed, however long they take."""


def sample_seconds(*, quick: bool) -> float:
    return QUICK_SECONDS if quick else SAMPLE_SECONDS


@contextmanager
def warned_of_later(data: DataConfig, data_dir: Path | None) -> Iterator[None]:
    """Ignores within what the run itself will warn of, but for what is left out of data: that is said by their first
    reader, which is this one."""
    load_raw(data, data_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def recipe_seconds(model: nn.Module, data: DataSet, recipe: Recipe, masks: Masks, sample: float) -> float:
    """The seconds of a whole training of `model` by `recipe`; the model itself stays as it is."""
    timed = copy_of(model)
    with one_thread(), placed(timed, recipe.device):
        return training_seconds(Training(timed, data, recipe, masks, 0), sample)


def training_seconds(training: Training, sample: float) -> float:
    """The seconds of a whole training, from iterations timed for `sample` seconds and two looks at validation.

    Of iterations the median counts: one in which something is compiled, or another program has the processor, may take
    as long as hundreds of others. The first ones do, of looks too.
    """

    def step() -> None:
        if training.iteration == training.total:  # nobody's schedule or batches go beyond the end
            training.iteration = training.first
        training.advance()
        finish(training.device)

    def look() -> None:
        training.engine.evaluate("validation")

    _timed(step)
    steps = [_timed(step)]
    while len(steps) < FEWEST or sum(steps) < sample:
        steps.append(_timed(step))
    of_a_look = min(_timed(look), _timed(look))
    parts = training.task.count("train") / training.task.count("validation")
    looks = training.total / training.every + parts + 4
    return training.total * statistics.median(steps) + looks * of_a_look


def _timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
