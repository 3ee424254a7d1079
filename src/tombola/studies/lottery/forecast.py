"""What a study will do and cost, before anything runs: `tombola imp --dry-run`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tombola.data import DataSet, load_data
from tombola.models import build
from tombola.pruning import Masks
from tombola.reports.tables import Table
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.networks import model_spec, replicate_seed
from tombola.studies.lottery.plan import Round
from tombola.studies.lottery.result import check_steps, plan_of, units_per_replicate
from tombola.training.fit import Training
from tombola.training.metrics import evaluate

SAMPLE_SECONDS = 2.0


@dataclass(frozen=True)
class Forecast:
    """The plan of a study and its cost, from a few timed iterations of the dense network on this machine.

    `seconds` is the whole study's with `workers` processes; `iterations` is that of one dense training.
    """

    rounds: list[Round]
    trainings: int
    iterations: int
    training_seconds: float
    seconds: float
    workers: int

    def table(self) -> Table:
        rows = [(str(r.index), f"{r.density:.2%}", f"{r.kept:,}") for r in self.rounds]
        return Table(("Round", "Density", "Weights"), rows)


def forecast(config: LotteryConfig, workers: int, data_dir: Path | None = None) -> Forecast:
    """Plans the study and times a dense training's iterations for about two seconds. Writes nothing."""
    data = load_data(config.data, replicate_seed(config, 0), data_dir)
    rounds = plan_of(config, data.input_shape, data.classes)
    check_steps(config, len(data.train))
    trainings = units_per_replicate(config, rounds) * config.replicates
    training, seconds = _dense_training(config, data)
    return Forecast(
        rounds,
        trainings,
        training.total - training.first,
        seconds,
        _makespan(trainings, config.replicates, workers) * seconds,
        min(workers, config.replicates),
    )


def _dense_training(config: LotteryConfig, data: DataSet) -> tuple[Training, float]:
    """The dense training of replicate 0, begun, and the seconds that all of it would take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = build(model_spec(config, 0, data.input_shape, data.classes))
        training = Training(model, data, config.training, Masks.full(model), seed=0)
        training.advance()  # the first is slower
        began, done = time.perf_counter(), 0
        while done < 5 or time.perf_counter() - began < SAMPLE_SECONDS:
            training.advance()
            done += 1
        step = (time.perf_counter() - began) / done
        began = time.perf_counter()
        evaluate(model, data.validation)
        look = time.perf_counter() - began
    finally:
        torch.set_num_threads(threads)
    looks = training.total / training.every + len(data.train) / len(data.validation) + 4
    return training, training.total * step + looks * look


def _makespan(trainings: int, replicates: int, workers: int) -> int:
    """Trainings that the busiest worker does: replicates are not split."""
    return -(-replicates // workers) * (trainings // replicates)


def lines(plan: Forecast, config: LotteryConfig) -> Sequence[str]:
    """What a person wants to know, in a few lines."""
    return [
        f"{plan.trainings} trainings: {config.replicates} replicates of {plan.trainings // config.replicates}, "
        f"{plan.iterations:,} iterations each at most; rewind to {', '.join(config.rewind)}; controls "
        f"{', '.join(config.controls) or 'none'}",
        f"one dense training takes about {plan.training_seconds:.0f} s on one thread of this machine; the study about "
        f"{_duration(plan.seconds)} with {plan.workers} worker(s), {plan.trainings // config.replicates} dense "
        "trainings a replicate at most",
    ]


def _duration(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 5400
        else f"{seconds / 60:.0f} min"
        if seconds >= 90
        else f"{seconds:.0f} s"
    )
