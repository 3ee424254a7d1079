"""How long a training takes on this machine, for what a study says of its cost before it runs."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tombola.data import DataConfig, load_raw
from tombola.training.device import finish
from tombola.training.training import Training

SAMPLE_SECONDS, QUICK_SECONDS = 2.0, 0.3
"""How long iterations are timed for a whole plan, and for one line before a run."""


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


def training_seconds(training: Training, sample: float) -> float:
    """The seconds of a whole training, from iterations timed for `sample` seconds and one look at validation."""
    training.advance()  # the first is slower
    finish(training.device)
    began, done = time.perf_counter(), 0
    while done < 5 or time.perf_counter() - began < sample:
        training.advance()
        finish(training.device)
        done += 1
    step = (time.perf_counter() - began) / done
    training.engine.evaluate("validation")  # and so is this
    began = time.perf_counter()
    training.engine.evaluate("validation")
    look = time.perf_counter() - began
    parts = training.task.count("train") / training.task.count("validation")
    looks = training.total / training.every + parts + 4
    return training.total * step + looks * look
