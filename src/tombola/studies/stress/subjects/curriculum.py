"""What the networks of one replicate learn: their tasks, in the replicate's order, as tokens of one tokenizer."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Sequence
from typing import Any

from tombola.data.text import TextTask
from tombola.data.text.generated import LEVELS
from tombola.data.text.user_tasks import read_tasks
from tombola.runs.seeds import derive_seed
from tombola.studies.stress.config import StressConfig
from tombola.studies.stress.subjects.protocols import PROBE, harder, probe_task, protocol_tasks
from tombola.training.completions import Completions

TRAIN, HELD_OUT = 320, 128
"""Items of every shipped task."""
QUICK_TRAIN, QUICK_HELD_OUT = 160, 96
LENGTH = 64
"""Tokens of an item, at most."""
FEW = 16
"""Held-out items of a look inside a phase."""
UP, DOWN = 0.75, 0.35
"""Fractions of right tokens from which a task becomes harder, and up to which it becomes easier."""


class Curriculum:
    """The tasks of one replicate: items, their order and the order of tasks hang on config and replicate alone."""

    def __init__(self, config: StressConfig, seed: int, tokenizer: Any) -> None:
        self.seed = derive_seed(config.seed, "stress", seed)
        self.tokenizer = tokenizer
        self.train, self.held_out = sizes_of(config)
        tasks = texts_of(config, self.seed)
        random.Random(derive_seed(self.seed, "order of tasks")).shuffle(tasks)
        self._texts = {task.name: task for task in tasks}
        self._levels = {task.name: task.difficulty for task in tasks}

    @property
    def names(self) -> list[str]:
        """Tasks in the order in which every cycle learns them."""
        return list(self._texts)

    @functools.cached_property
    def tasks(self) -> dict[str, Completions]:
        """As they are scored, whatever becomes harder on the way."""
        return {name: self._encoded(text) for name, text in self._texts.items()}

    @functools.cached_property
    def probe(self) -> Completions:
        """The language of the plasticity probe."""
        return self._encoded(probe_task(self.seed, self.train, self.held_out))

    def refuse_unreadable(self) -> None:
        """DataError for an item that is too long for a model; what is read for it is kept."""
        assert self.tasks

    @property
    def probe_name(self) -> str:
        return PROBE

    def difficulty(self, name: str) -> int | None:
        """The level that a task begins with; None where it has no levels."""
        return self._levels[name]

    def at(self, name: str, difficulty: int | None) -> Completions:
        """A task to learn, at a level."""
        if difficulty is None or difficulty == self._levels[name]:
            return self.tasks[name]
        return self._encoded(harder(name, difficulty, self.seed, self.train, self.held_out))

    def _encoded(self, text: TextTask) -> Completions:
        return Completions.of(text, self.tokenizer, LENGTH)


def sizes_of(config: StressConfig) -> tuple[int, int]:
    """Items of every shipped task: to learn from, and held out."""
    return (QUICK_TRAIN, QUICK_HELD_OUT) if config.quick else (TRAIN, HELD_OUT)


def texts_of(config: StressConfig, seed: int) -> list[TextTask]:
    """The tasks of a study in their own order: somebody's own, or those of the protocol."""
    return (
        read_tasks(config.tasks)
        if config.tasks is not None
        else protocol_tasks(config.protocol, seed, *sizes_of(config))
    )


def next_difficulty(name: str, difficulty: int, accuracy: float) -> int:
    """The level at which a task is learned the next time, one up or down by how many tokens are right."""
    change = (accuracy >= UP) - (accuracy <= DOWN)
    return min(max(difficulty + change, 1), LEVELS[name])


def few(tasks: Sequence[Completions]) -> list[Completions]:
    """The same tasks with the held-out items that are looked at inside a phase."""
    return [task.first(FEW) for task in tasks]


def checksum_of(config: StressConfig) -> str:
    """Over the items of all tasks of the first replicate: what a run depends on beside its config."""
    digest = hashlib.sha256()
    for task in texts_of(config, derive_seed(config.seed, "stress", 0)):
        for item in (*task.train, *task.held_out):
            digest.update(f"{task.name}\x1f{item.prompt}\x1f{item.completion}\x1e".encode())
    return digest.hexdigest()
