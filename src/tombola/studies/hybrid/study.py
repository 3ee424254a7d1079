"""How a hybrid study runs: its lotteries, then a cell per replicate, then measured time, then the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tombola.errors import RunFolderError
from tombola.models import build
from tombola.models.exits import find_exit
from tombola.runs.atomic import make_folder, read_bytes, read_json, write_bytes, write_text
from tombola.runs.executors import run_cells
from tombola.runs.folder import RunFolder, begin_or_continue, run_folder, writing
from tombola.runs.rows import Row, RowTable, read_rows, rows_of
from tombola.studies.hybrid.artefacts import NAMES, SUMMARY, write_results
from tombola.studies.hybrid.config import HybridConfig
from tombola.studies.hybrid.cuts import FORESTS, LATENCY, UNIT, Sources, frozen_base, sources_of
from tombola.studies.hybrid.latency import REPLICATE, latency_units
from tombola.studies.hybrid.replicate import Finished, ReplicateSpec, run_replicate, unit_names
from tombola.studies.hybrid.report import report_page
from tombola.studies.hybrid.result import HybridResult
from tombola.studies.hybrid.watcher import Watcher
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.networks import model_spec
from tombola.studies.lottery.result import Result, data_facts

COPY_LIMIT = 4 << 30
RunLottery = Callable[[str, LotteryConfig], Result]
"""Runs the lottery of a role, continues it, or shows it where it is finished."""


def run_hybrid(
    config: HybridConfig,
    out: Path,
    run_lottery: RunLottery,
    *,
    workers: int = 1,
    results: Path | None = None,
    data_dir: Path | None = None,
    watcher: Watcher,
) -> HybridResult:
    """Runs, continues or shows the study of `config` in its folder below `out`, its lotteries first.

    Their runs are those of `tombola imp`: what is finished is not run again. Exits that do not exist are refused before
    anything is trained. `results`, if given, gets a copy of the run's `results/`.
    """
    folder = run_folder(out, config.study, config.name, config)
    if results is not None:
        refuse_foreign(results, folder)
    _check_exits(config, data_dir)
    lotteries = {role: run_lottery(role, lottery) for role, lottery in config.lotteries().items()}
    finished = _read_finished(folder, config, lotteries)
    if finished is None:
        with writing(folder):
            finished = _run(folder, config, lotteries, workers, data_dir, watcher)
    if results is not None:
        for name in NAMES:
            if (folder.results / name).exists():
                write_bytes(results / name, read_bytes(folder.results / name, COPY_LIMIT))
    return finished


def _check_exits(config: HybridConfig, data_dir: Path | None) -> None:
    """ConfigError with the list of exits, for one that the networks do not have."""
    cnn = config.lotteries()["cnn"]
    facts = data_facts(cnn, data_dir)
    networks = [build(model_spec(cnn, 0, facts["input_shape"], facts["classes"]))]
    base = frozen_base(Sources(config, Path(), 0, data_dir))
    networks += [] if base is None else [base.network]
    for network in networks:
        for name in (*config.exits, config.gate_exit):
            find_exit(network, name)


def _run(
    folder: RunFolder,
    config: HybridConfig,
    lotteries: dict[str, Result],
    workers: int,
    data_dir: Path | None,
    watcher: Watcher,
) -> HybridResult:
    runs = {role: run.folder.root.name for role, run in lotteries.items()}
    begin_or_continue(folder, config.study, config, {"data": lotteries["cnn"].data, "lotteries": runs})
    (folder.results / SUMMARY).unlink(missing_ok=True)  # until they are written again
    make_folder(folder.checkpoints)
    table = RowTable(folder.rows, UNIT)
    sources = sources_of(config, lotteries, data_dir)
    replicates = range(lotteries["cnn"].config.replicates)
    specs = [ReplicateSpec(sources, index, folder.checkpoints) for index in replicates]
    left = [spec for spec in specs if not _whole(table.rows, config, spec.index)]
    names = unit_names(config)
    watcher.begin(len(left) * len(names), sum(len(_done(table.rows, FORESTS, spec.index)) for spec in left))
    run_cells(run_replicate, left, workers, _listener(table, watcher))
    done = _done(table.rows, LATENCY, REPLICATE)
    missing = len(names) - len(done)
    for number, unit in enumerate(latency_units(sources, specs[REPLICATE].path, table.rows, done), start=1):
        table.append_unit(unit)
        watcher.measuring(number, missing)
    result = HybridResult(folder, config, table.rows, lotteries)
    write_text(folder.report, report_page(result))
    write_results(result)  # its summary last: it says that all is written
    return result


def _listener(table: RowTable, watcher: Watcher) -> Callable[[Any], None]:
    def listen(event: Finished) -> None:
        rows = read_json(event.path)["rows"]
        if table.append_unit(rows):
            watcher.unit(rows[0])

    return listen


def _whole(rows: list[Row], config: HybridConfig, replicate: int) -> bool:
    return _done(rows, FORESTS, replicate) == unit_names(config)


def _done(rows: list[Row], unit: str, replicate: int) -> list[str]:
    """The networks of which the table has the unit, in their order."""
    return list(dict.fromkeys(row["network"] for row in rows_of(rows, unit=unit, replicate=replicate)))


def _read_finished(folder: RunFolder, config: HybridConfig, lotteries: dict[str, Result]) -> HybridResult | None:
    """The result of a run whose replicates are all there and whose artefacts are written."""
    if not folder.manifest.exists() or not folder.report.exists() or not (folder.results / SUMMARY).exists():
        return None
    folder.read_manifest()
    rows = read_rows(folder.rows, UNIT)
    asked = range(lotteries["cnn"].config.replicates)
    written = read_json(folder.results / SUMMARY).get("replicates")
    whole = all(_whole(rows, config, index) for index in asked) and _done(rows, LATENCY, REPLICATE)
    return HybridResult(folder, config, rows, lotteries) if whole and written == len(asked) else None


def refuse_foreign(results: Path, folder: RunFolder) -> None:
    """Before hours of work: a results folder of another run must not be overwritten at their end."""
    summary = results / SUMMARY
    ours = summary.exists() and read_json(summary).get("run") == folder.root.name
    if not ours and any((results / name).exists() for name in NAMES):
        raise RunFolderError(f"--results {results}: holds files of another run; choose another folder")
    make_folder(results)
