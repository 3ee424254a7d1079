"""How a hybrid study runs: its lotteries, then a cell per replicate, then measured time, then the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tombola.errors import TombolaError
from tombola.runs.atomic import make_folder, remove, write_text
from tombola.runs.executors import run_cells
from tombola.runs.folder import PROCESSOR, RunFolder, begin_or_continue, run_folder, writing
from tombola.runs.inventory import is_whole, seal, unseal
from tombola.runs.results import copy_results, finished_replicates, refuse_foreign
from tombola.runs.rows import RowTable, read_unit
from tombola.studies.hybrid.artefacts import ARTEFACTS, SUMMARY, write_results
from tombola.studies.hybrid.columns import SCHEMA
from tombola.studies.hybrid.config import HybridConfig
from tombola.studies.hybrid.cuts import sources_of
from tombola.studies.hybrid.latency import latency_unit
from tombola.studies.hybrid.outlook import check_lotteries, check_study, look_ahead
from tombola.studies.hybrid.pooled import prepare_base
from tombola.studies.hybrid.replicate import REPEAT, Finished, ReplicateSpec, is_stored, run_replicate
from tombola.studies.hybrid.report import report_page
from tombola.studies.hybrid.result import HybridResult, open_hybrid
from tombola.studies.hybrid.units import (
    MEASURED_REPLICATE,
    UNIT,
    complete_replicates,
    is_measured,
    unit_names,
    whole_units,
)
from tombola.studies.hybrid.watcher import Watcher
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.result import Result
from tombola.training.processor import processor_facts

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

    Their runs are those of `tombola imp`: what is finished is not run again. What cannot be run is refused before
    anything is trained. A finished study is read, and never made smaller: asked for fewer replicates than it was
    finished with, it shows all of them. `results`, if given, gets a copy of the run's `results/`.
    """
    folder = run_folder(out, config.study, config.name, config)
    config = _with_finished_replicates(folder, config)
    if results is not None:
        refuse_foreign(results, folder.root.name, ARTEFACTS)
    finished = _read_finished(folder, config)
    if finished is None:
        facts = check_study(config, data_dir)
        if not folder.manifest.exists():
            watcher.planned(look_ahead(config, facts, out, workers, data_dir))
        lotteries = {role: run_lottery(role, lottery) for role, lottery in config.lotteries().items()}
        check_lotteries(facts, lotteries)
        with writing(folder):
            finished = _run(folder, config, facts, lotteries, workers, data_dir, watcher)
    if results is not None:
        copy_results(folder.results, results, ARTEFACTS)
    return finished


def _run(
    folder: RunFolder,
    config: HybridConfig,
    facts: dict[str, Any],
    lotteries: dict[str, Result],
    workers: int,
    data_dir: Path | None,
    watcher: Watcher,
) -> HybridResult:
    runs = {role: run.folder.root.name for role, run in lotteries.items()}
    begin_or_continue(folder, config.study, config, {**facts, "lotteries": runs, PROCESSOR: processor_facts()})
    table = folder.table(UNIT, SCHEMA)
    # From here on the results are not those of this number of replicates, until they are written again.
    unseal(folder)
    remove(folder.results / SUMMARY)
    make_folder(folder.checkpoints)
    sources = sources_of(config, lotteries, data_dir, facts)
    asked = range(config.lotteries()["cnn"].replicates)
    specs = [ReplicateSpec(sources, index, folder.checkpoints) for index in asked]
    complete = complete_replicates(table.rows, config)
    left = [spec for spec in specs if spec.index not in complete or not is_stored(spec, table.rows)]
    done = sum(len(whole_units(table.rows, spec.index)) for spec in left)
    watcher.begin(len(left) * len(unit_names(config)), done)
    if left:
        prepare_base(config, data_dir)
    run_cells(run_replicate, left, workers, _listener(table, watcher))
    if not is_measured(table.rows):
        table.append_unit(latency_unit(sources, specs[MEASURED_REPLICATE].path, watcher.measuring))
    result = HybridResult(folder, config, [row for row in table.rows if row["replicate"] in asked], lotteries)
    write_text(folder.report, report_page(result))
    write_results(result)
    seal(folder)  # last: it says that all is written
    return result


def _listener(table: RowTable, watcher: Watcher) -> Callable[[Any], None]:
    def listen(event: Finished) -> None:
        rows = read_unit(event.path, REPEAT)
        if table.append_unit(rows):
            watcher.unit(rows[-1])

    return listen


def _read_finished(folder: RunFolder, config: HybridConfig) -> HybridResult | None:
    """The result of a run whose replicates are all there and whose artefacts are written, and as they were."""
    if not folder.manifest.exists() or not is_whole(folder, is_made_from_rows):
        return None
    if not folder.report.exists():
        return None
    if finished_replicates(folder.results, SUMMARY) != config.lotteries()["cnn"].replicates:
        return None
    try:
        return open_hybrid(folder.root)
    except TombolaError:  # a lottery is gone: it is run again; what is damaged is said on the way
        return None


def is_made_from_rows(name: str) -> bool:
    """Whether a file of a run is made again from its rows and its lotteries."""
    return not name.startswith(("checkpoints/", "manifest.json"))


def _with_finished_replicates(folder: RunFolder, config: HybridConfig) -> HybridConfig:
    """The config with as many replicates as the run was last finished with, if these are more."""
    asked = config.lotteries()["cnn"].replicates
    return config.model_copy(update={"replicates": max(asked, finished_replicates(folder.results, SUMMARY))})
