"""What a stress evaluation will train, and about how long that takes: estimated before it runs, nothing is written."""

from __future__ import annotations

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
from tombola.studies.stress.subjects.curriculum import Curriculum, texts_of
from tombola.studies.stress.subjects.networks import Subject
from tombola.training import Recipe
from tombola.training.batches import iterations_per_epoch
from tombola.training.threads import one_thread
from tombola.training.training import Training

LOOKING = 2.0
"""A phase with all its looks takes about so many times its training alone."""


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
    timed = [_phase_seconds(config, subject, sample) for subject in subjects]
    one = sum(seconds for seconds, _ in timed) / len(timed)
    workers = min(workers, total)
    return StressPlan(config, total, phases, timed[0][1], total * phases * one * LOOKING / workers, workers)


def _phase_seconds(config: StressConfig, subject: Subject, sample: float) -> tuple[float, int]:
    """The seconds and the steps of a phase, of the task that is first in order."""
    curriculum = Curriculum(config, 0, subject.tokenizer)
    task = curriculum.tasks[curriculum.names[0]].first(1)
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
        return training_seconds(Training(network, task, recipe, Masks.full(network), 0), sample), steps
