"""How a lottery study runs, top to bottom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola.data.sources import load_raw
from tombola.errors import RunFailure, RunFolderError, StorageError
from tombola.models import ModelSpec, build
from tombola.runs.atomic import make_folder, read_bytes, read_json, write_bytes, write_text
from tombola.runs.executors import run_cells
from tombola.runs.folder import RunFolder, begin_or_continue, run_folder, writing
from tombola.runs.rows import Row, RowTable, read_rows
from tombola.studies.lottery.artefacts import NAMES, SUMMARY, write_results
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.metrics import UNIT, Summary, failed_checks, summarise
from tombola.studies.lottery.plan import Round, plan_rounds
from tombola.studies.lottery.replicate import Finished, Progress, ReplicateSpec, layer_sizes, run_replicate
from tombola.studies.lottery.report import report_page
from tombola.studies.lottery.verdict import Verdict, judge

COPY_LIMIT = 16 << 30


@dataclass(frozen=True)
class Result:
    """A finished study: its rows (complete replicates only), what they come to, and where it lies."""

    folder: RunFolder
    config: LotteryConfig
    rows: list[Row]
    summaries: list[Summary]
    verdict: Verdict


@dataclass(frozen=True)
class Watcher:
    """Functions that are told what happens: what is about to run, each finished unit, and where trainings are.

    `begin(units, finished)` counts trainings; `unit(row)` gets the training row of each unit that ends.
    """

    begin: Callable[[int, int], None]
    unit: Callable[[Row], None]
    progress: Callable[[Progress], None]


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

    A finished study is read, not run again. `results`, if given, gets a copy of the run's `results/`.
    """
    folder = run_folder(out, config.study, config.name, config)
    if results is not None:
        _refuse_foreign(results, folder)
    finished = _read_finished(folder, config)
    if finished is None:
        with writing(folder):
            finished = _run(folder, config, workers, data_dir, watcher)
    if results is not None:
        _copy_results(folder, results)
    return finished


def _run(
    folder: RunFolder, config: LotteryConfig, workers: int, data_dir: Path | None, watcher: Watcher | None
) -> Result:
    raw = load_raw(config.data, data_dir)
    shape, classes = tuple(raw.training.inputs.shape[1:]), raw.classes
    plan = _plan(config, shape, classes)
    data = {"name": raw.name, "checksum": raw.checksum, "input_shape": list(shape), "classes": classes}
    begin_or_continue(folder, config.study, config, {"data": data})
    make_folder(folder.checkpoints)
    table = RowTable(folder.rows, UNIT)

    units = _units_per_replicate(config, plan)
    left = sorted(set(range(config.replicates)) - complete_replicates(table.rows, units))
    if watcher is not None:
        done = sum(row["kind"] == "training" and row["replicate"] in left for row in table.rows)
        watcher.begin(len(left) * units, done)
    specs = [ReplicateSpec(config, index, folder.checkpoints, data_dir) for index in left]
    run_cells(run_replicate, specs, workers, _listener(table, watcher))
    return _conclude(folder, config, table.rows, units, data)


def _listener(table: RowTable, watcher: Watcher | None) -> Callable[[Any], None]:
    """Takes events of the cells: rows of finished units go to the table, all else to the watcher."""

    def listen(event: Any) -> None:
        if isinstance(event, Finished):
            rows = _unit_rows(event.path)
            fresh = table.append_unit(rows)
            if fresh and watcher is not None:
                watcher.unit(rows[0])
        elif watcher is not None:
            watcher.progress(event)

    return listen


def _unit_rows(path: Path) -> list[Row]:
    try:
        rows: list[Row] = read_json(path)["rows"]
        if not rows or not all(isinstance(row, dict) for row in rows):
            raise TypeError("holds no rows")
    except (StorageError, KeyError, TypeError) as error:
        raise StorageError(f"{path}: damaged ({error}); delete it to repeat this training") from None
    return rows


def _conclude(
    folder: RunFolder, config: LotteryConfig, rows: Sequence[Row], units: int, data: dict[str, Any]
) -> Result:
    """Reads the table into a verdict and writes artefacts and report."""
    result = _result(folder, config, rows, units)
    if failures := failed_checks(result.rows):
        raise RunFailure(f"a promise of the run was broken: {failures[0]} ({len(failures)} such); see {folder.rows}")
    write_text(folder.report, report_page(config, result.rows, result.summaries, result.verdict))
    # The summary is the last file of the results and says that all is written: see _read_finished.
    write_results(folder, config, data, result.summaries, result.verdict)
    return result


def _result(folder: RunFolder, config: LotteryConfig, rows: Sequence[Row], units: int) -> Result:
    complete = complete_replicates(rows, units)
    used = [row for row in rows if row["replicate"] in complete]
    return Result(folder, config, used, summarise(used), judge(used, config.tolerance))


def _read_finished(folder: RunFolder, config: LotteryConfig) -> Result | None:
    """The result of a run whose asked replicates are all there and whose artefacts are written."""
    if not folder.manifest.exists():
        return None
    data = folder.read_manifest().get("must_match", {}).get("data", {})
    try:
        plan = _plan(config, tuple(data["input_shape"]), data["classes"])
    except (KeyError, TypeError, ValueError):
        return None  # an altered manifest: begin_or_continue refuses it by name
    rows = read_rows(folder.rows)
    units = _units_per_replicate(config, plan)
    complete = complete_replicates(rows, units)
    if not set(range(config.replicates)) <= complete or not folder.report.exists():
        return None
    if not (folder.results / SUMMARY).exists():
        return None
    if read_json(folder.results / SUMMARY).get("replicates") != len(complete):
        return None
    return _result(folder, config, rows, units)


def complete_replicates(rows: Sequence[Row], units: int) -> set[int]:
    """The replicates of which every unit is in the table, to its last row."""

    def key(row: Row) -> tuple[int, int, str]:
        return row["replicate"], row["round"], row["branch"]

    # A unit's rows arrive in order, its evaluations last, and the last of these at the last iteration.
    ends = {key(row): row["iterations"] for row in rows if row["kind"] == "training"}
    whole = {key(row) for row in rows if row["kind"] == "evaluation" and row["iteration"] == ends.get(key(row))}
    counts = Counter(replicate for replicate, _, _ in whole)
    return {replicate for replicate, count in counts.items() if count == units}


def _plan(config: LotteryConfig, shape: tuple[int, ...], classes: int) -> list[Round]:
    spec = ModelSpec(**config.model.model_dump(), input_shape=shape, classes=classes, seed=0)
    return plan_rounds(config.pruning, layer_sizes(build(spec)))


def _units_per_replicate(config: LotteryConfig, plan: Sequence[Round]) -> int:
    return 1 + (len(plan) - 1) * (1 + len(config.controls))


def _refuse_foreign(results: Path, folder: RunFolder) -> None:
    """Before hours of work: a results folder of another run must not be overwritten at their end."""
    if results.exists() and not results.is_dir():
        raise StorageError(f"--results {results}: is a file; name a folder")
    summary = results / SUMMARY
    found = read_json(summary) if summary.exists() else {"run": folder.root.name}
    if not isinstance(found, dict) or found.get("run") != folder.root.name:
        raise RunFolderError(f"--results {results}: holds the results of another run; choose another folder")
    make_folder(results)


def _copy_results(folder: RunFolder, results: Path) -> None:
    for name in NAMES:
        write_bytes(results / name, read_bytes(folder.results / name, COPY_LIMIT))
