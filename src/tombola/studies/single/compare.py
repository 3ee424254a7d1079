"""`tombola compare`: which method of pruning loses least. A parent per replicate, every method of the grid on each."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from tombola.data.dataset import recorded
from tombola.errors import in_line
from tombola.models.own import initial_network
from tombola.reports.terminal import drawn, say
from tombola.runs.columns import misfit
from tombola.runs.rows import Row, damaged
from tombola.runs.seeds import derive_seed
from tombola.studies.base.numbers import whole_percent
from tombola.studies.base.output import Numbers
from tombola.studies.base.own_code import network_facts
from tombola.studies.base.study import Plan, Study
from tombola.studies.base.timing import warned_of_later
from tombola.studies.base.watching import FEATURES
from tombola.studies.base.work import Work
from tombola.studies.single.comparison import SHOWN_OF_METHOD, UNITS, Comparison, summarise
from tombola.studies.single.comparison_report import (
    NOTE,
    comparison_page,
    comparison_table,
    lead,
    remarks,
    write_beside,
)
from tombola.studies.single.config import CompareConfig
from tombola.studies.single.grid import UNIT, ChildSpec, ParentSpec, measure_child, train_parent
from tombola.studies.single.grid_plan import plan_grid
from tombola.studies.single.metrics import CHECKS, GRID_SCHEMA, MADE
from tombola.studies.single.parents import spec_for
from tombola.training.frozen import load_examples, prepare_examples


class Compare(Study[CompareConfig, Comparison]):
    """Units are parents and children, a row each, in the table replicate by replicate."""

    name = "compare"
    config_type = CompareConfig
    unit = UNIT
    schema = GRID_SCHEMA
    checks = CHECKS

    def facts(self) -> dict[str, Any]:
        prepare_examples(self.config.data, self.call.data_dir, self.call.watcher.counting(FEATURES))
        data = load_examples(self.config.data, self.config.seed, self.call.data_dir)
        first = derive_seed(derive_seed(self.config.seed, "replicate", 0), "init")
        network = initial_network(spec_for(self.config.model, data, first), data.train.inputs)
        facts = {"data": recorded(data), "seed": self.config.seed}
        return facts | network_facts(self.config.model, network)

    def plan(self, *, quick: bool) -> Plan:
        config, data_dir = self.config, self.call.data_dir
        with warned_of_later(config.data, data_dir) if quick else contextlib.nullcontext():
            return plan_grid(config, self.call.workers, data_dir, quick=quick)

    def work(self, work: Work) -> None:
        config, checksum = self.config, self.recorded["data"]["checksum"]
        parents = [
            ParentSpec(config, index, self.folder.checkpoints, self.call.data_dir, checksum)
            for index in range(config.replicates)
        ]
        children = {
            parent: [ChildSpec(parent, *method) for method in enumerate(config.methods())] for parent in parents
        }
        every_child = [child for parent in parents for child in children[parent]]
        units: list[ParentSpec | ChildSpec] = []
        for parent in parents:
            units += [parent, *children[parent]]
        known = {unit.key for unit in units if work.table.holds(unit.key)}
        work.watcher.begin("parents and children", len(units), len(known), min(work.workers, len(units)))
        work.write_in_order(unit.key for unit in units)
        work.cells(train_parent, [parent for parent in parents if parent.key not in known or not parent.is_whole])
        work.cells(measure_child, [child for child in every_child if child.key not in known or not child.is_whole])

    def complete(self, rows: Sequence[Row]) -> set[int]:
        found = Counter(row["replicate"] for row in rows)
        return {index for index, count in found.items() if count == 1 + len(self.config.methods())}

    def result(self, rows: Sequence[Row], complete: set[int]) -> Comparison:
        config = self.config.model_copy(update={"replicates": len(complete)})
        return summarise(self.folder.root, config, [row for row in rows if row["replicate"] in complete])

    def report(self, result: Comparison) -> str:
        return comparison_page(result)

    def write(self, result: Comparison) -> None:
        write_beside(self.folder, result)

    def read_rows(self) -> list[Row]:
        """A child whose method was not refused has what was measured of it."""
        rows = super().read_rows()
        for line_number, row in enumerate(rows, start=1):
            if row["kind"] == "way" and row["refused"] is None and (wrong := misfit(row, MADE)):
                raise damaged(self.folder.rows, line_number, wrong)
        return rows

    def described(self, rows: Sequence[Row]) -> str:
        (row,) = rows
        if row["kind"] == "stage":
            return f"parent {row['replicate']}"
        outcome = "refused" if row["refused"] else f"test {row['test_accuracy']:.2%}"
        method = f"{row['criterion']}, {row['structure']}, {row['distribution']}, {whole_percent(row['sparsity'])}"
        return f"{method}: {outcome}"

    @staticmethod
    def show(console: Console, result: Comparison) -> None:
        """The table, what each setting says, and where the page lies."""
        console.print(drawn(comparison_table(result.settings), left=4))
        say(console, f"{NOTE}\n")
        for line in [*(setting.sentence for setting in result.settings), *remarks(result)]:
            say(console, line)
        say(console, f"\n{lead(result)}", "bold")
        say(console, f"Report: {in_line(result.folder / 'report.html')}")

    @staticmethod
    def numbers(result: Comparison) -> Numbers:
        """A row for every method in every setting, and what each setting says."""
        methods = [
            {**setting.where, "chosen": method is setting.best, **{n: getattr(method, n) for n in SHOWN_OF_METHOD}}
            for setting in result.settings
            for method in setting.methods
        ]
        settings = [{**setting.where, "says": setting.sentence} for setting in result.settings]
        return Numbers(methods, {"settings": settings, "parent": result.parent}, UNITS)

    @staticmethod
    def outcome(result: Comparison) -> str:
        return lead(result)
