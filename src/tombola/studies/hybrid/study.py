"""How a hybrid study runs: its lotteries, then a cell per replicate, then measured time."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from tombola.errors import TombolaError
from tombola.runs.rows import Row
from tombola.studies.base.life import run_study
from tombola.studies.base.output import Numbers
from tombola.studies.base.study import Study
from tombola.studies.base.work import Work
from tombola.studies.hybrid.answers import answers_of
from tombola.studies.hybrid.artefacts import ARTEFACTS, write_results
from tombola.studies.hybrid.config import HybridConfig
from tombola.studies.hybrid.cuts import sources_of
from tombola.studies.hybrid.latency import latency_unit
from tombola.studies.hybrid.pooled import prepare_base
from tombola.studies.hybrid.replicate import ReplicateSpec, is_stored, run_replicate
from tombola.studies.hybrid.report import report_page
from tombola.studies.hybrid.requirements import HybridPlan, check_lotteries, check_study, plan_hybrid
from tombola.studies.hybrid.result import HybridResult, read_lotteries
from tombola.studies.hybrid.shown import show_result
from tombola.studies.hybrid.summaries import UNITS, entries
from tombola.studies.hybrid.units import (
    MEASURED_REPLICATE,
    NETWORK,
    SCHEMA,
    UNIT,
    complete_replicates,
    is_measured,
    unit_names,
    whole_units,
)
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.forecast import forecast, quick_forecast
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.study import Lottery


class Hybrid(Study[HybridConfig, HybridResult]):
    """A unit is all that is learned on one network in one replicate; all latencies are one more.

    Its lotteries are runs of `tombola imp` beside its own: what is finished of them is not run again.
    """

    name = "hybrid"
    config_type = HybridConfig
    unit = UNIT
    schema = SCHEMA
    artefacts = ARTEFACTS

    @property
    def replicates(self) -> int:
        return self.config.lotteries()["cnn"].replicates

    @functools.cached_property
    def requirements(self) -> dict[str, Any]:
        """What the study stands on, lotteries apart; what cannot run is refused here."""
        return check_study(self.config, self.call.data_dir)

    def plan(self, *, quick: bool) -> HybridPlan:
        call, cost = self.call, quick_forecast if quick else forecast
        return plan_hybrid(self.config, self.requirements, call.out, call.workers, call.data_dir, cost)

    def facts(self) -> dict[str, Any]:
        check_lotteries(self.requirements, self.lotteries)
        runs = {role: result.folder.root.name for role, result in self.lotteries.items()}
        return {**self.requirements, "lotteries": runs}

    @functools.cached_property
    def lotteries(self) -> dict[str, Result]:
        """The lotteries by role, run as far as they are not."""
        _ = self.requirements  # before anything is trained
        return {role: self._run_lottery(role, lottery) for role, lottery in self.config.lotteries().items()}

    def _run_lottery(self, role: str, config: LotteryConfig) -> Result:
        self.call.watcher.say(f"{role}: the lottery {config.name}")
        result = run_study(Lottery, config, self.call.within())
        self.call.watcher.say(result.verdict.sentence)
        return result

    def said(self, result: HybridResult) -> None:
        """Its lotteries are runs of their own, which may be gone."""

    def is_ready(self) -> bool:
        try:
            read_lotteries(self.folder, self.recorded)
        except TombolaError:  # one is gone, or not finished: it is run again; what is damaged is said on the way
            return False
        return True

    def work(self, work: Work) -> None:
        sources = sources_of(self.config, self.lotteries, self.call.data_dir, self.requirements)
        specs = [ReplicateSpec(sources, index, self.folder.checkpoints) for index in range(self.replicates)]
        complete = self.complete(work.rows)
        left = [spec for spec in specs if spec.index not in complete or not is_stored(spec, work.rows)]
        done = sum(len(whole_units(work.rows, spec.index)) for spec in left)
        units, workers = len(left) * len(unit_names(self.config)), min(work.workers, len(left) or 1)
        work.watcher.begin("units of exits, forests and gates", units, done, workers)
        if left:
            prepare_base(self.config, self.call.data_dir)
        work.cells(run_replicate, left)
        if not is_measured(work.rows):
            prepared = work.watcher.counting("pipelines ready for timing")
            work.append(latency_unit(sources, specs[MEASURED_REPLICATE].path, prepared))

    def complete(self, rows: Sequence[Row]) -> set[int]:
        return complete_replicates(rows, self.config)

    def result(self, rows: Sequence[Row], complete: set[int]) -> HybridResult:
        used = [row for row in rows if row["replicate"] in complete]
        return HybridResult(self.folder, self.config, used, read_lotteries(self.folder, self.recorded))

    def report(self, result: HybridResult) -> str:
        return report_page(result)

    def write(self, result: HybridResult) -> None:
        write_results(result)

    def described(self, rows: Sequence[Row]) -> str:
        return f"replicate {rows[-1]['replicate']}, {NETWORK[rows[-1]['network']]}"

    @staticmethod
    def show(console: Console, result: HybridResult) -> None:
        show_result(console, result)

    @staticmethod
    def numbers(result: HybridResult) -> Numbers:
        return Numbers(entries(result.rows), {"answers": [answer.entry for answer in answers_of(result)]}, UNITS)

    @staticmethod
    def outcome(result: HybridResult) -> str:
        """Whether tickets match or beat dense networks."""
        return answers_of(result)[1].lead
