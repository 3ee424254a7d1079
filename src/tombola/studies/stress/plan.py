"""What a stress evaluation will train, and about how long that takes: estimated before it runs, nothing is written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from tombola.pruning import Masks
from tombola.reports.terminal import say
from tombola.studies.base.numbers import counted, duration
from tombola.studies.base.output import Numbers
from tombola.studies.base.timing import sample_seconds, training_seconds
from tombola.studies.stress.cells import cells_of
from tombola.studies.stress.config import StressConfig
from tombola.studies.stress.living.cell import LOOKS
from tombola.studies.stress.living.looking import probe_steps
from tombola.studies.stress.living.scoring import scored
from tombola.studies.stress.subjects.curriculum import FEW, Curriculum, few, texts_of
from tombola.studies.stress.subjects.networks import Subject
from tombola.training import Recipe
from tombola.training.batches import iterations_per_epoch
from tombola.training.threads import one_thread
from tombola.training.training import Training

DRAWING = 2.0
"""Seconds for the figures of a strategy at a level."""
AT_A_CYCLES_END = 6
"""How often a few items of all tasks go through a network there: function, correlates, the probe's own looks."""
WITHIN_A_PHASE = 0.6 * LOOKS
"""The same while a task is learned, when on average a little more than half of the tasks are looked at."""


@dataclass(frozen=True)
class StressPlan:
    """So many networks, each of so many phases of so many steps."""

    config: StressConfig
    networks: int
    phases: int
    steps: int
    seconds: float
    workers: int

    @property
    def line(self) -> str:
        return (
            f"{counted(self.networks, 'network')}, each of {counted(self.phases, 'phase')} of about {self.steps} "
            f"steps: about {duration(self.seconds)} with {counted(self.workers, 'worker')}"
        )

    @property
    def numbers(self) -> Numbers:
        whole = {"networks": self.networks, "phases": self.phases, "steps": self.steps, "seconds": self.seconds}
        return Numbers([], whole, {"seconds": "s"})

    def show(self, console: Console) -> None:
        config = self.config
        say(console, f"Models: {', '.join(config.model)}. Protocol: {config.tasks or config.protocol}.")
        say(console, f"Strategies: {', '.join(config.strategies)}, at {', '.join(f'{x:g}' for x in config.levels)}.")
        say(console, f"{counted(config.replicates, 'seed')}; {counted(config.cycles, 'cycle')} of all tasks.")
        say(console, self.line)


def plan_stress(config: StressConfig, subjects: Sequence[Subject], workers: int, *, quick: bool) -> StressPlan:
    """The plan of a study, from a few iterations of each model that are timed."""
    networks = [len(list(cells_of(config, seed))) for seed in range(config.replicates)]
    total = sum(networks) if config.search is None else 2 * config.search + 1
    phases = len(texts_of(config, 0)) * config.cycles * config.prune_cycles
    sample = sample_seconds(quick=quick) / len(subjects)
    timed = [_life_seconds(config, subject, phases, sample) for subject in subjects]
    one = sum(seconds for seconds, _ in timed) / len(timed)
    workers = min(workers, total)
    figures = DRAWING * (2 + len(config.strategies) * len(config.levels)) * len(subjects)
    return StressPlan(config, total, phases, timed[0][1], total * one / workers + figures, workers)


def _life_seconds(config: StressConfig, subject: Subject, phases: int, sample: float) -> tuple[float, int]:
    """The seconds of one network's life, and the steps of a phase, as the task that is first in order has them."""
    curriculum = Curriculum(config, 0, subject.tokenizer)
    task = curriculum.tasks[curriculum.names[0]]
    steps = iterations_per_epoch(task.count("train"), config.batch_size) * config.epochs
    recipe = Recipe(
        optimizer="adamw",
        learning_rate=1e-9,
        batch_size=config.batch_size,
        length=f"{config.epochs}ep",
        evaluate_every=f"{steps}it",
    )
    network = subject.network()
    with one_thread():
        learning = training_seconds(Training(network, task.first(1), recipe, Masks.full(network), 0), sample)
        began = time.perf_counter()
        scored(network, dict(zip(curriculum.names, few(list(curriculum.tasks.values())), strict=True)))
        look = time.perf_counter() - began
    cycles = config.cycles * config.prune_cycles
    probe = 2 * learning * probe_steps(config) / steps  # its items are as long as items can be
    of_phases = phases * (learning * (1 + 1 / cycles) + look * (task.count("validation") / FEW + WITHIN_A_PHASE))
    return of_phases + (cycles + 2 * config.prune_cycles) * (probe + look * AT_A_CYCLES_END), steps
