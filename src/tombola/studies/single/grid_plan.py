"""What a comparison will train and prune, and how long it takes: estimated before it runs, nothing is written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from torch import nn

from tombola.data import DataSet
from tombola.errors import PruningError, counted
from tombola.models.own import initial_network
from tombola.pruning import Masks
from tombola.reports.tables import Table
from tombola.reports.terminal import drawn, say
from tombola.runs.seeds import derive_seed
from tombola.studies.base.numbers import duration
from tombola.studies.base.output import Numbers
from tombola.studies.base.timing import recipe_seconds, sample_seconds
from tombola.studies.single.child import Making, prune_once
from tombola.studies.single.config import CompareConfig, Pruning
from tombola.studies.single.parents import spec_for
from tombola.training.frozen import foreseen_examples
from tombola.training.threads import one_thread

REFUSED = "refused"


@dataclass(frozen=True)
class Scoring:
    """The methods of one structure and criterion: how many, and the seconds that pruning takes in the first of them.

    Seconds are None where that is refused.
    """

    structure: str
    criterion: str
    methods: int
    seconds: float | None


@dataclass(frozen=True)
class GridPlan:
    """Parents and children, and seconds from a few iterations timed on this machine.

    `scorings` is empty in a quick plan, which counts trainings alone. Fine-tunings are counted as dense ones; on sparse
    kernels they take less.
    """

    parents: int
    methods: int
    workers: int
    parent_seconds: float
    tuning_seconds: float
    features_seconds: float
    scorings: list[Scoring]

    @property
    def seconds(self) -> float:
        """Of the whole comparison: parents first, then their children, on all workers."""
        pruning = sum(scoring.methods * scoring.seconds for scoring in self.scorings if scoring.seconds is not None)
        refused = sum(scoring.methods for scoring in self.scorings if scoring.seconds is None)
        children = self.parents * (pruning + (self.methods - refused) * self.tuning_seconds)
        return self.features_seconds + -(-self.parents // self.workers) * self.parent_seconds + children / self.workers

    @property
    def line(self) -> str:
        by = counted(self.workers, "worker")
        return f"{self._counted}, about {duration(self.seconds)} with {by}; --dry-run shows more"

    @property
    def _counted(self) -> str:
        return f"{self.parents} parents and {self.parents * self.methods} children, {self.methods} of each parent"

    @property
    def numbers(self) -> Numbers:
        whole = {"parents": self.parents, "children": self.parents * self.methods, "seconds": self.seconds}
        return Numbers(self.scorings, whole, {"seconds": "s"})

    def show(self, console: Console) -> None:
        rows = [
            (f"{s.criterion} on {s.structure}", str(s.methods), REFUSED if s.seconds is None else f"{s.seconds:.3g}")
            for s in self.scorings
        ]
        table = Table(("Method", "Children of a parent", "Seconds to prune one"), rows)
        console.print(drawn(table, left=1))
        said = [
            f"{self._counted}; a parent trains for about {duration(self.parent_seconds)}, a child for at most "
            f"{duration(self.tuning_seconds)}, on one thread of this machine",
            f"the comparison takes about {duration(self.seconds)} with {counted(self.workers, 'worker')} at most",
        ]
        if self.features_seconds:
            said.append(f"of that about {duration(self.features_seconds)} for features of the frozen base")
        for line in said:
            say(console, line)


def plan_grid(config: CompareConfig, workers: int, data_dir: Path | None, *, quick: bool) -> GridPlan:
    """The plan of a comparison. Unless it is to be `quick`, every criterion prunes once the parent that a few
    iterations were timed on."""
    seed = derive_seed(config.seed, "replicate", 0)
    data, features_seconds = foreseen_examples(config.data, seed, data_dir)
    model = initial_network(spec_for(config.model, data, derive_seed(seed, "init")), data.train.inputs)
    sample = sample_seconds(quick=quick)
    with one_thread():
        parent, tuning = (
            0.0 if recipe is None else recipe_seconds(model, data, recipe, Masks.full(model), sample)
            for recipe in (config.training, config.fine_tuning)
        )
        scorings = [] if quick else list(_scorings(config, model, data))
    units = config.replicates * len(config.methods())
    return GridPlan(
        config.replicates, len(config.methods()), min(workers, units), parent, tuning, features_seconds, scorings
    )


def _scorings(config: CompareConfig, model: nn.Module, data: DataSet) -> Iterator[Scoring]:
    groups: dict[tuple[str, str], list[Pruning]] = {}
    for method in config.methods():
        groups.setdefault((method.structure, method.criterion), []).append(method)
    for (structure, criterion), methods in groups.items():
        making = Making(model, Masks.full(model), data, methods[0], None, config.batch_size, config.seed, Path(), 0.0)
        began = time.perf_counter()
        try:
            prune_once(making)
            seconds: float | None = time.perf_counter() - began
        except PruningError:
            seconds = None
        yield Scoring(structure, criterion, len(methods), seconds)
