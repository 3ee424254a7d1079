"""What a study will do and cost, before anything runs: all of it with `--dry-run`, in one line before a new run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
from rich.console import Console
from torch import nn

from tombola.errors import counted
from tombola.models.own import initial_network
from tombola.pruning import Masks, prune
from tombola.pruning.emptied import not_warning
from tombola.reports.tables import Table, fixed
from tombola.reports.terminal import drawn, say
from tombola.studies.base import timing
from tombola.studies.base.numbers import duration
from tombola.studies.base.output import Numbers
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.networks import layer_sizes, replicate_seed
from tombola.studies.lottery.plan import Round, plan_rounds, rates_of
from tombola.studies.lottery.result import check_steps, units_per_replicate
from tombola.studies.lottery.start import start_facts, started
from tombola.studies.lottery.tasks import shape_of, spec_of, task_facts, task_of, tried_on
from tombola.training.classification import Classification
from tombola.training.device import resolve
from tombola.training.engine import layers_on_kernels
from tombola.training.frozen import foreseen_examples
from tombola.training.task import Task
from tombola.training.threads import one_thread
from tombola.training.training import Training

PROBES = 4
"""Densities at which steps of the sparse engine are timed; the cost between them is interpolated."""


@dataclass(frozen=True)
class Forecast:
    """The plan of a study and its cost, from a few timed iterations on this machine.

    `seconds` is the whole study's with `workers` processes; `iterations` is that of one dense training.
    `round_seconds` is what one training of each round takes, the dense network's first, `features_seconds` what is
    left of passing the examples through a frozen base before any training.
    """

    config: LotteryConfig
    rounds: list[Round]
    trainings: int
    iterations: int
    round_seconds: list[float]
    seconds: float
    workers: int
    features_seconds: float = 0.0

    @property
    def training_seconds(self) -> float:
        """Of one dense training."""
        return self.round_seconds[0]

    @property
    def line(self) -> str:
        return estimate_line([self])

    @property
    def numbers(self) -> Numbers:
        rounds = [
            {"round": r.index, "density": r.density, "weights": r.kept, "seconds": seconds}
            for r, seconds in zip(self.rounds, self.round_seconds, strict=True)
        ]
        whole = {"trainings": self.trainings, "iterations": self.iterations, "seconds": self.seconds}
        return Numbers(rounds, whole, {"density": "fraction", "seconds": "s"})

    def show(self, console: Console) -> None:
        """The rounds, and what they will cost."""
        console.print(drawn(self.table()))
        for line in self.lines():
            say(console, line)

    def lines(self) -> list[str]:
        """What a person wants to know, in a few lines."""
        config = self.config
        said = [
            f"{self.trainings} trainings: {config.replicates} replicates of {self.trainings // config.replicates}, "
            f"{self.iterations:,} iterations each at most; rewind to {', '.join(config.rewind)}; controls "
            f"{', '.join(config.controls) or 'none'}",
            f"a training takes about {self.training_seconds:.3g} s dense and {self.round_seconds[-1]:.3g} s in the "
            f"last round, on one thread of this machine; the study about {duration(self.seconds)} with "
            f"{counted(self.workers, 'worker')} at most",
        ]
        if self.features_seconds:
            features = duration(self.features_seconds)
            said.append(f"of that about {features} before any training, for features of the frozen base")
        return said

    def table(self) -> Table:
        rows = [
            (str(r.index), f"{r.density:.2%}", f"{r.kept:,}", seconds)
            for r, seconds in zip(self.rounds, fixed(self.round_seconds), strict=True)
        ]
        return Table(("Round", "Density", "Weights", "Seconds a training"), rows)


def forecast(config: LotteryConfig, workers: int, data_dir: Path | None = None, *, quick: bool = False) -> Forecast:
    """Plans the study and times iterations of a training, for one line or for a whole plan. Writes nothing.

    Rounds that train on sparse kernels are timed as such, with masks of their density from the initial weights.
    """
    config = started(config)
    task, features_seconds = _task(config, data_dir)
    if config.task is None:
        start_facts(config, *(shape_of(task) or ((), 0)))
    else:
        task_facts(config, task)  # refuses what cannot be run
    rounds = plan_rounds(config.pruning, layer_sizes(_network(config, task)))
    check_steps(config, task.batches(config.training.batch_size, 0).per_epoch)
    units = units_per_replicate(config, rounds)
    with one_thread():
        iterations, seconds = _round_seconds(config, rounds, task, timing.sample_seconds(quick=quick))
    dense = len(config.dense_branches)
    in_a_round = (units - dense) // (len(rounds) - 1)
    waves = -(-config.replicates // workers)  # of the busiest worker: replicates are not split
    return Forecast(
        config,
        rounds,
        units * config.replicates,
        iterations,
        seconds,
        features_seconds + waves * (dense * seconds[0] + in_a_round * sum(seconds[1:])),
        min(workers, config.replicates),
        features_seconds,
    )


def _task(config: LotteryConfig, data_dir: Path | None) -> tuple[Task, float]:
    """Replicate 0's task, of a base's features with what is as large; and the seconds until it is there."""
    if config.task is not None or config.images.base is None:
        return task_of(config, 0, data_dir), 0.0
    data, seconds = foreseen_examples(config.images, replicate_seed(config, 0), data_dir)
    return Classification(data), seconds


def _network(config: LotteryConfig, task: Task) -> nn.Module:
    """Replicate 0's, before any training."""
    return initial_network(spec_of(config, 0, task), tried_on(task))


@not_warning()  # these masks are only timed
def _round_seconds(
    config: LotteryConfig, rounds: Sequence[Round], task: Task, sample: float
) -> tuple[int, list[float]]:
    """Iterations of the dense training, and the seconds that one training of every round would take."""
    model = _network(config, task)
    dense = _begun(config, task, Masks.full(model))
    seconds = [timing.training_seconds(dense, sample)] * len(rounds)
    if not _sparse(config, model, task, prune(model, 1 - rounds[-1].density)):
        return dense.total - dense.first, seconds
    masks = _masks(config, rounds, model)
    # From the sparsest backwards: once dense steps are faster, they are so for every denser round.
    others = range(len(rounds) - 1, 0, -1)
    cheaper = list(takewhile(lambda i: _sparse(config, model, task, masks[i]), others))
    if cheaper:
        chosen = list(dict.fromkeys(cheaper[round(i * (len(cheaper) - 1) / (PROBES - 1))] for i in range(PROBES)))
        timed = [timing.training_seconds(_begun(config, task, masks[i]), sample / PROBES) for i in chosen]
        between = np.interp([rounds[i].density for i in cheaper], [rounds[i].density for i in chosen], timed)
        for i, estimated in zip(cheaper, between, strict=True):
            seconds[i] = float(estimated)
    return dense.total - dense.first, seconds


def _sparse(config: LotteryConfig, model: nn.Module, task: Task, masks: Masks) -> bool:
    """Whether a training with these masks would be on sparse kernels."""
    return any(layers_on_kernels(model, config.training, masks, config.training.batch_size, task=task))


def _masks(config: LotteryConfig, rounds: Sequence[Round], model: nn.Module) -> list[Masks]:
    """Masks as many weights as the rounds will have, by magnitude whatever the criterion: they are only timed."""
    pruning, found = config.pruning, [Masks.full(model)]
    distribution = rates_of(pruning) if pruning.distribution == "rates" else pruning.distribution
    for planned in rounds[1:]:
        found.append(
            prune(
                model,
                planned.sparsity,
                distribution=distribution,
                masks=found[-1],
                min_keep=pruning.min_keep,
            )
        )
    return found


def _begun(config: LotteryConfig, task: Task, masks: Masks) -> Training:
    """A training of replicate 0 under masks, begun."""
    model = _network(config, task)
    masks.apply_(model)
    return Training(model.to(resolve(config.training.device)), task, config.training, masks, seed=0)


def quick_forecast(config: LotteryConfig, workers: int, data_dir: Path | None = None) -> Forecast:
    """A forecast in a moment, for the one line."""
    if config.task is not None:
        return forecast(config, workers, data_dir, quick=True)
    with timing.warned_of_later(config.images, data_dir):
        return forecast(config, workers, data_dir, quick=True)


def estimate_line(plans: Sequence[Forecast]) -> str:
    """What studies that run one after the other come to, in one line."""
    trainings, seconds = sum(plan.trainings for plan in plans), sum(plan.seconds for plan in plans)
    workers = max(plan.workers for plan in plans)
    time = f"about {duration(seconds)} with {counted(workers, 'worker')}"
    return f"{trainings} trainings, {time}, starting and measuring on top; --dry-run shows the rounds"
