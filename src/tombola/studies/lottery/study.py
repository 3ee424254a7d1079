"""How a lottery study runs, top to bottom."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from tombola.errors import RunFolderError, StorageError
from tombola.models.own import initial_network
from tombola.pruning.prunable import listed, unsupported_parameters
from tombola.runs.columns import Schema
from tombola.runs.folder import check_facts, writing
from tombola.runs.inventory import seal, unseal
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.measures import ACCURACY, Scale
from tombola.studies.base.opened import open_study
from tombola.studies.base.output import Numbers
from tombola.studies.base.own_code import network_facts
from tombola.studies.base.study import Study
from tombola.studies.base.watching import FEATURES
from tombola.studies.base.work import Work
from tombola.studies.lottery.artefacts import ARTEFACTS, keras_export_is_due, write_results
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.controls import controls
from tombola.studies.lottery.forecast import Forecast, forecast, quick_forecast
from tombola.studies.lottery.latency import latency_units, rounds_to_measure
from tombola.studies.lottery.looks import look_row
from tombola.studies.lottery.metrics import CHECKS, UNIT
from tombola.studies.lottery.networks import blank, layer_sizes, model_spec
from tombola.studies.lottery.over_replicates import units_of
from tombola.studies.lottery.overlap import overlap_units
from tombola.studies.lottery.plan import Round, plan_rounds
from tombola.studies.lottery.replicate import ReplicateSpec, run_replicate
from tombola.studies.lottery.report import report_page
from tombola.studies.lottery.result import (
    Result,
    check_made,
    check_network,
    check_steps,
    complete_replicates,
    data_facts,
    make_result,
    measure_of,
    plan_of,
    units_per_replicate,
)
from tombola.studies.lottery.shown import show_result
from tombola.studies.lottery.stabilities import stored_stabilities
from tombola.studies.lottery.start import start_facts, started
from tombola.studies.lottery.stored import ReplicateFiles
from tombola.studies.lottery.tasks import spec_of, task_facts, task_of, task_sha256, tried_on
from tombola.studies.lottery.training_rows import SCHEMA, schema_of_task
from tombola.training.batches import iterations_per_epoch
from tombola.training.engine import ANY_CLASSES, ANY_IMAGE
from tombola.training.frozen import prepare_examples
from tombola.training.task import Measure


def open_lottery(root: Path) -> Lottery:
    """The run in folder `root`; RunFolderError where there is none, ConfigError where its config is damaged."""
    found = open_study(Lottery, root)
    assert isinstance(found, Lottery)
    return found


class Lottery(Study[LotteryConfig, Result]):
    """A unit is one training. Every verdict that is shown is a look, and has its row."""

    name = "lottery"
    config_type = LotteryConfig
    unit = UNIT
    schema = SCHEMA
    artefacts = ARTEFACTS
    checks = CHECKS

    @classmethod
    def started(cls, config: LotteryConfig) -> LotteryConfig:
        return started(config)

    @property
    def data(self) -> Any:
        """What the run has recorded of its data."""
        return self.recorded.get("data")

    @functools.cached_property
    def rounds(self) -> list[Round]:
        """The rounds of the run, as many weights as each leaves."""
        try:
            if self.own_code is not None:  # which is called by nobody who only looks
                return plan_rounds(self.config.pruning, self.recorded["network"]["layers"])
            return plan_of(self.config, self.data["input_shape"], self.data["classes"])
        except (KeyError, TypeError, ValueError):
            raise RunFolderError(f"{self.folder.manifest}: does not say which data, it is damaged") from None

    @property
    def units(self) -> int:
        """Trainings in a whole replicate."""
        return units_per_replicate(self.config, self.rounds)

    @property
    def measure(self) -> Measure:
        """What the networks of the run, which has begun, are compared by."""
        return measure_of(self.config, self.data, str(self.folder.manifest))

    @property
    def columns(self) -> Schema:
        if self.config.task is None or not self.folder.manifest.exists():
            return SCHEMA
        measures = self.data.get("measures")
        if not isinstance(measures, list) or self.measure.name not in measures:
            raise RunFolderError(f"{self.folder.manifest}: does not say what was measured, it is damaged")
        return schema_of_task(measures, self.measure.name)

    def check(self) -> None:
        """Refuses a task that the caller holds where the run there is of another one, finished or not."""
        if self.config.task is None or self.config.task.held is None or not self.folder.manifest.exists():
            return
        task = task_of(self.config, 0, self.call.data_dir, self.data["checksum"])
        check_facts(self.folder, {"task": task_sha256(task)})

    def facts(self) -> dict[str, Any]:
        if self.config.task is not None:
            return self._task_facts()
        config, data_dir = self.config, self.call.data_dir
        picky = any(controls.get(name).check for name in config.controls)
        # What no data change is refused before they are read.
        if self.own_code is None and (config.training.engine == "sparse" or picky):
            check_network(config, ANY_IMAGE, ANY_CLASSES)
        prepare_examples(config.images, data_dir, self.call.watcher.counting(FEATURES))
        data = data_facts(config, data_dir)
        shape, classes = data["input_shape"], data["classes"]
        plan_of(config, shape, classes)
        check_steps(config, iterations_per_epoch(data["training_examples"], config.training.batch_size))
        check_network(config, shape, classes)
        start = start_facts(config, tuple(shape), classes)
        own = self._network_facts(shape, classes)
        return {"data": data, "seed": config.seed, **start, **own, **self._control_facts()}

    def _control_facts(self) -> dict[str, Any]:
        """The versions of the libraries that its controls are made by."""
        names = {library for name in self.config.controls for library in controls.get(name).libraries}
        return {"control_libraries": {name: version(name) for name in sorted(names)}} if names else {}

    def _task_facts(self) -> dict[str, Any]:
        config, task = self.config, task_of(self.config, 0, self.call.data_dir)
        own = task_sha256(task)
        data, spec = task_facts(config, task), spec_of(config, 0, task)
        network = initial_network(spec, tried_on(task))
        check_made(config, spec, network, tried_on(task))
        self._name_unpruned(network)
        check_steps(config, task.batches(config.training.batch_size, 0).per_epoch)
        plan_rounds(config.pruning, layer_sizes(network))
        made = {**network_facts(config.model, network), **self._control_facts()}
        return {"data": data, "task": own, "seed": config.seed, **made}

    def _network_facts(self, shape: Sequence[int], classes: int) -> dict[str, Any]:
        if self.own_code is None:
            return {}
        spec = model_spec(self.config, 0, shape, classes)
        network = initial_network(spec, blank(spec))
        self._name_unpruned(network)
        return network_facts(self.config.model, network)

    def _name_unpruned(self, network: nn.Module) -> None:
        """Once, before all rounds prune: what of somebody's own network is no weight that can be pruned."""
        if names := unsupported_parameters(network):
            self.call.watcher.say(
                f"{listed(names)}: left as they are, not pruned and not counted, being no plain weights of Linear or "
                "convolution layers"
            )

    def plan(self, *, quick: bool) -> Forecast:
        return (quick_forecast if quick else forecast)(self.config, self.call.workers, self.call.data_dir)

    def work(self, work: Work) -> None:
        complete = self.complete(work.rows)
        left = [i for i in range(self.replicates) if i not in complete or not self._is_stored(i)]
        done = sum(row["replicate"] in left for row in rows_of(work.rows, kind="training"))
        work.watcher.begin("trainings", len(left) * self.units, done, min(work.workers, len(left) or 1))
        recorded = self.data["checksum"], self.recorded.get("start")
        folder, data_dir = self.folder.checkpoints, self.call.data_dir
        work.cells(run_replicate, [ReplicateSpec(self.config, i, folder, data_dir, *recorded) for i in left])
        for unit in overlap_units(self._so_far(work)):
            work.append(unit)
        self._measure(work)
        work.append([look_row(self.replicates)])  # before the verdict is shown, which this look spends error on

    def _is_stored(self, replicate: int) -> bool:
        """Whether no file of a replicate is gone."""
        return ReplicateFiles.of(self.folder.checkpoints, replicate).are_whole(self.config, len(self.rounds))

    def _so_far(self, work: Work) -> Result:
        return self.result(work.rows, set(range(self.replicates)))

    def _measure(self, work: Work) -> None:
        """Latency of the tickets that have none yet; here, when no training disturbs it any more."""
        result = self._so_far(work)
        rounds, measured = rounds_to_measure(result), work.watcher.counting("measuring latency")
        for done, unit in enumerate(latency_units(result, rounds, self.call.data_dir), start=1):
            work.append(unit)
            measured(done, len(rounds))

    def read_rows(self) -> list[Row]:
        """RunFolderError where the rows are of another network than the config's."""
        rows = super().read_rows()
        weights = self.rounds[0].total
        if odd := [row["total"] for row in rows_of(rows, kind="training") if row["total"] != weights]:
            raise RunFolderError(
                f"{self.folder.root}: its config and manifest make a network of {weights:,} weights, its rows are of "
                f"one of {odd[0]:,}: these files do not belong together; put them back from a copy"
            )
        return rows

    def complete(self, rows: Sequence[Row]) -> set[int]:
        return complete_replicates(rows, self.units)

    def result(self, rows: Sequence[Row], complete: set[int]) -> Result:
        return make_result(self.folder, self.config, self.data, rows, complete)

    def report(self, result: Result) -> str:
        return report_page(result, stored_stabilities(self.folder.root))

    def write(self, result: Result) -> None:
        write_results(result, self.call.data_dir)

    def settle(self, result: Result) -> None:
        """Adds the Keras export to results that were finished before its extra came; not on a read-only disk."""
        if not keras_export_is_due(result):
            return
        try:
            with writing(self.folder):
                unseal(self.folder)
                self.write(result)
                seal(self.folder, said=self.said(result))
        except StorageError as error:
            warnings.warn(f"the Keras export was not written: {error}", stacklevel=2)

    def described(self, rows: Sequence[Row]) -> str:
        row = rows[0]
        return (
            f"replicate {row['replicate']}, round {row['round']}, {row['density']:.1%} {row['branch']}: "
            f"validation {self._said_of(row)}"
        )

    def _said_of(self, row: Row) -> str:
        value, measure = row[f"validation_{self.measure.name}"], self.measure
        return f"{value:.2%}" if measure == ACCURACY else Scale(measure).said(value)

    @staticmethod
    def show(console: Console, result: Result) -> None:
        show_result(console, result)

    @staticmethod
    def numbers(result: Result) -> Numbers:
        entries = [summary.entry for summary in result.summaries]
        return Numbers(entries, result.verdict, units_of(result.summaries[0].measure))

    @staticmethod
    def outcome(result: Result) -> str:
        verdict = result.verdict
        return verdict.outcome if verdict.density is None else f"{verdict.outcome} at {verdict.density:.1%}"
