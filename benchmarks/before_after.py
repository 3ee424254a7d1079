"""Steps of training in two checkouts of the project, against each other: does a change cost speed?

    git worktree add ../before <commit>
    python benchmarks/before_after.py ../before [--blocks 25] [--only dense]

Two versions cannot live in one process, so each checkout has a worker of its own, which imports that checkout's `src`
and `benchmarks/sparse_training.py`. The workers take turns, block by block, on one thread, so that a noisy machine
disturbs both alike. Figures are medians over blocks, of microseconds per step, by the clock and by the processor's time
that the worker used. A ratio above 1 means that this checkout is slower.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Workload:
    """What is trained and how: the first fields are those of `sparse_training.Case`. A block is `steps` steps."""

    optimizer: str
    batch: int
    momentum: float
    network: str
    shape: tuple[int, int, int]
    steps: int
    engine: str
    density: float

    @property
    def title(self) -> str:
        return f"{self.network}, B={self.batch} {self.optimizer}, {self.density:g} kept, {self.engine}"


def lenet(optimizer: str, batch: int, density: float, engine: str, momentum: float = 0.0) -> Workload:
    return Workload(optimizer, batch, momentum, "lenet-300-100", (1, 28, 28), 40, engine, density)


WORKLOADS = (
    lenet("adam", 60, 0.2, "dense"),
    lenet("sgd", 128, 0.2, "dense"),
    lenet("adam", 64, 0.2, "sparse"),
    lenet("adam", 64, 0.05, "sparse"),
    lenet("sgd", 64, 0.05, "sparse", 0.9),
    Workload("adam", 64, 0.0, "lenet5", (1, 28, 28), 10, "dense", 0.2),
    Workload("adam", 64, 0.0, "lenet5", (1, 28, 28), 10, "sparse", 0.05),
    Workload("adam", 64, 0.0, "conv2", (3, 32, 32), 1, "sparse", 0.05),
)


class Seconds(NamedTuple):
    """Of one step."""

    clock: float
    processor: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("before", type=Path, help="the checkout to compare with")
    arguments.add_argument("--blocks", type=int, default=25, help="blocks of each checkout, in turn (at least 15)")
    arguments.add_argument("--only", default="", help="cases whose titles contain this")
    options = arguments.parse_args()
    chosen = [number for number, workload in enumerate(WORKLOADS) if options.only in workload.title]
    workers = [Worker(options.before.resolve()), Worker(HERE)]
    print("| Case | Before (us) | After (us) | Ratio by the clock | Ratio by processor time |")
    print("| --- | --- | --- | --- | --- |")
    for number in chosen:
        print(row(number, *taken_in_turns(number, workers, options.blocks)), flush=True)


def taken_in_turns(number: int, workers: list[Worker], blocks: int) -> list[list[Seconds]]:
    """The blocks of each worker, after one of warm-up; who begins changes from block to block."""
    taken: list[list[Seconds]] = [[] for _ in workers]
    for block in range(blocks + 1):
        order = range(len(workers)) if block % 2 else range(len(workers) - 1, -1, -1)
        for own in order:
            seconds = workers[own].block(number)
            if block:
                taken[own].append(seconds)
    return taken


def row(number: int, before: list[Seconds], after: list[Seconds]) -> str:
    medians = [[statistics.median(values) for values in zip(*taken, strict=True)] for taken in (before, after)]
    shown = [f"{1e6 * clock:,.0f}" for clock, _ in medians]
    ratios = [f"{new / old:.3f}" for old, new in zip(*medians, strict=True)]
    return f"| {' | '.join([WORKLOADS[number].title, *shown, *ratios])} |"


class Worker:
    """A process that imports one checkout and runs a block of a case whenever it is asked."""

    def __init__(self, checkout: Path) -> None:
        paths = f"{checkout / 'src'}{os.pathsep}{checkout / 'benchmarks'}"
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        # Its own benchmarks come before this file's folder, which Python would otherwise look into first.
        command = [sys.executable, "-P", __file__, WORK]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def block(self, number: int) -> Seconds:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(number, file=self.process.stdin)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"a worker ended with exit code {self.process.wait()}")
        return Seconds(*json.loads(answer))


WORK = "--as-a-worker"


def work() -> None:
    """Answers every number of a case with the seconds of one block, until nobody asks any more."""
    import torch

    torch.set_num_threads(1)
    steps: dict[int, Callable[[], Any]] = {}
    for line in sys.stdin:
        number = int(line)
        if number not in steps:
            steps[number] = training_of(WORKLOADS[number])
        print(json.dumps(seconds_of(steps[number], WORKLOADS[number].steps)), flush=True)


def training_of(workload: Workload) -> Callable[[], Any]:
    """The step of a case, made by the benchmark of the checkout that was imported."""
    from sparse_training import Case, random_data, training

    case = Case(workload.optimizer, workload.batch, workload.momentum, {}, workload.network, workload.shape)  # type: ignore[arg-type]
    return training(case, workload.density, random_data(4_000, workload.shape), workload.engine).advance


def seconds_of(step: Callable[[], Any], count: int) -> Seconds:
    clock, processor = time.perf_counter(), time.process_time()
    for _ in range(count):
        step()
    return Seconds((time.perf_counter() - clock) / count, (time.process_time() - processor) / count)


if __name__ == "__main__":
    work() if sys.argv[1:] == [WORK] else main()
