"""How a lottery study runs, top to bottom."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola.errors import RunFailure, StorageError
from tombola.runs.atomic import make_folder, remove, write_text
from tombola.runs.executors import run_cells
from tombola.runs.folder import PROCESSOR, RunFolder, begin_or_continue, run_folder, writing
from tombola.runs.inventory import is_whole, seal, unseal
from tombola.runs.results import copy_results, finished_replicates, refuse_foreign
from tombola.runs.rows import Row, RowTable, read_unit
from tombola.studies.lottery.artefacts import ARTEFACTS, SUMMARY, keras_export_is_due, write_results
from tombola.studies.lottery.columns import SCHEMA
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.controls import controls
from tombola.studies.lottery.forecast import Forecast, quick_forecast
from tombola.studies.lottery.latency import latency_units, rounds_to_measure
from tombola.studies.lottery.looks import look_row
from tombola.studies.lottery.metrics import UNIT, failed_checks
from tombola.studies.lottery.overlap import overlap_units
from tombola.studies.lottery.plan import Round
from tombola.studies.lottery.replicate import REPEAT, Finished, Progress, ReplicateSpec, run_replicate
from tombola.studies.lottery.report import report_page
from tombola.studies.lottery.result import (
    Result,
    check_network,
    check_steps,
    complete_replicates,
    data_facts,
    make_result,
    open_run,
    plan_of,
    units_per_replicate,
)
from tombola.studies.lottery.stability import stored_stabilities
from tombola.studies.lottery.start import start_facts, started
from tombola.studies.lottery.stored import ReplicateFiles
from tombola.training.engine import ANY_CLASSES, ANY_IMAGE
from tombola.training.frozen import prepare_examples
from tombola.training.processor import processor_facts


@dataclass(frozen=True)
class Watcher:
    """Functions that are told what happens: what is about to run, each finished unit, and where trainings are.

    `begin(units, finished)` counts trainings; `unit(row)` gets the training row of each unit that ends;
    `measuring(done, total)` counts the networks whose latency is measured at the end, `features(done, total)` the
    examples that have passed a frozen base before anything is trained. `planned` gets what a new run will cost.
    """

    begin: Callable[[int, int], None]
    unit: Callable[[Row], None]
    progress: Callable[[Progress], None]
    measuring: Callable[[int, int], None] = lambda done, total: None
    features: Callable[[int, int], None] = lambda done, total: None
    planned: Callable[[Forecast], None] = lambda plan: None


def run_study(
    config: LotteryConfig,
    out: Path,
    *,
    workers: int = 1,
    results: Path | None = None,
    data_dir: Path | None = None,
    watcher: Watcher | None = None,
) -> Result:
    """Runs, continues or shows the study of `config` in its folder below `out`.

    A finished study is read, not run again, and never made smaller: asked for fewer replicates than it was
    finished with, it shows all of them. `results`, if given, gets a copy of the run's `results/`.
    """
    config = started(config)
    folder = run_folder(out, config.study, config.name, config)
    config = _with_finished_replicates(folder, config)
    if results is not None:
        refuse_foreign(results, folder.root.name, ARTEFACTS)
    finished = _read_finished(folder, config)
    if finished is not None and keras_export_is_due(finished):
        _add_keras_export(finished, data_dir)
    if finished is None:
        picky = any(controls.get(name).check for name in config.controls)
        if config.training.engine == "sparse" or picky:  # what no data change is refused before they are read
            check_network(config, ANY_IMAGE, ANY_CLASSES)
        with writing(folder):
            finished = _run(folder, config, workers, data_dir, watcher)
    if results is not None:
        copy_results(folder.results, results, ARTEFACTS)
    return finished


def _run(
    folder: RunFolder, config: LotteryConfig, workers: int, data_dir: Path | None, watcher: Watcher | None
) -> Result:
    if watcher is not None:
        if not folder.manifest.exists():
            watcher.planned(quick_forecast(config, workers, data_dir))
        prepare_examples(config.data, data_dir, watcher.features)
    data = data_facts(config, data_dir)
    rounds = plan_of(config, data["input_shape"], data["classes"])
    check_steps(config, data["training_examples"])
    check_network(config, data["input_shape"], data["classes"])
    start = start_facts(config, tuple(data["input_shape"]), data["classes"])
    facts = {"data": data, "seed": config.seed, PROCESSOR: processor_facts(), **start}
    begin_or_continue(folder, config.study, config, facts)
    make_folder(folder.checkpoints)
    table = folder.table(UNIT, SCHEMA)
    unseal(folder)
    if told := finished_replicates(folder.results, SUMMARY):
        table.append_unit([look_row(told)])  # a version that recorded no looks may have shown this verdict
    # From here on the results are not those of this number of replicates, until they are written again.
    remove(folder.results / SUMMARY)
    _refuse_broken_promises(table)

    units = units_per_replicate(config, rounds)
    complete = complete_replicates(table.rows, units)
    left = [i for i in range(config.replicates) if i not in complete or not _is_stored(folder, config, rounds, i)]
    if watcher is not None:
        done = sum(row["kind"] == "training" and row["replicate"] in left for row in table.rows)
        watcher.begin(len(left) * units, done)
    recorded = data["checksum"], start.get("start")
    specs = [ReplicateSpec(config, index, folder.checkpoints, data_dir, *recorded) for index in left]
    run_cells(run_replicate, specs, workers, _listener(table, watcher))
    asked = set(range(config.replicates))
    for unit in overlap_units(make_result(folder, config, data, table.rows, asked)):
        table.append_unit(unit)
    _measure(make_result(folder, config, data, table.rows, asked), table, data_dir, watcher)
    table.append_unit([look_row(config.replicates)])  # before the verdict is shown, which this look spends error on
    result = make_result(folder, config, data, table.rows, asked)
    write_text(folder.report, report_page(result, stored_stabilities(folder.root)))
    # The summary is the last file of the results, and the inventory the last of all: see _read_finished.
    write_results(result, data_dir)
    seal(folder)
    return result


def _is_stored(folder: RunFolder, config: LotteryConfig, rounds: Sequence[Round], replicate: int) -> bool:
    """Whether no file of a replicate is gone."""
    return ReplicateFiles.of(folder.checkpoints, replicate).are_whole(config, len(rounds))


def _measure(result: Result, table: RowTable, data_dir: Path | None, watcher: Watcher | None) -> None:
    """Latency of the tickets, where the table does not have it; here, when no training disturbs it any more."""
    rounds = rounds_to_measure(result)
    for done, unit in enumerate(latency_units(result, rounds, data_dir), start=1):
        table.append_unit(unit)
        if watcher is not None:
            watcher.measuring(done, len(rounds))


def _listener(table: RowTable, watcher: Watcher | None) -> Callable[[Any], None]:
    """Takes events of the cells: rows of finished units go to the table, all else to the watcher."""

    def listen(event: Any) -> None:
        if isinstance(event, Finished):
            rows = read_unit(event.path, REPEAT)
            fresh = table.append_unit(rows)
            _refuse_broken_promises(table, rows)
            if fresh and watcher is not None:
                watcher.unit(rows[0])
        elif watcher is not None:
            watcher.progress(event)

    return listen


def _refuse_broken_promises(table: RowTable, rows: Sequence[Row] | None = None) -> None:
    """A failed check is in the table, and ends the run: no result is made of it."""
    if failures := failed_checks(table.rows if rows is None else rows):
        raise RunFailure(f"a promise of the run was broken: {failures[0]}; see {table.path}")


def _read_finished(folder: RunFolder, config: LotteryConfig) -> Result | None:
    """The result of a run whose asked replicates are all there and whose artefacts are written, and as they were."""
    if not folder.manifest.exists() or not is_whole(folder, is_made_from_rows):
        return None
    if not folder.report.exists() or not (folder.results / SUMMARY).exists():
        return None
    opened = open_run(folder.root)
    rows = opened.read_rows()
    asked = set(range(config.replicates))
    if not asked <= complete_replicates(rows, opened.units):
        return None
    if finished_replicates(folder.results, SUMMARY) != config.replicates:
        return None  # these results are damaged, or of another number of replicates: they are written again
    return make_result(folder, config, opened.data, rows, asked)


def _add_keras_export(finished: Result, data_dir: Path | None) -> None:
    """Writes the results of a finished run again, now with a Keras export; a disk that is read-only has none."""
    try:
        with writing(finished.folder):
            unseal(finished.folder)
            write_results(finished, data_dir)
            seal(finished.folder)
    except StorageError as error:
        warnings.warn(f"the Keras export was not written: {error}", stacklevel=2)


def is_made_from_rows(name: str) -> bool:
    """Whether a file of a run is made again from its rows and checkpoints."""
    return not name.startswith(("checkpoints/", "manifest.json"))


def _with_finished_replicates(folder: RunFolder, config: LotteryConfig) -> LotteryConfig:
    """The config with as many replicates as the run was last finished with, if these are more."""
    return config.model_copy(
        update={"replicates": max(config.replicates, finished_replicates(folder.results, SUMMARY))}
    )
