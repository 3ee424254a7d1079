"""`tombola compress`: candidates along every path, what they cost; the smallest that loses little is tested once."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from tombola.data.dataset import recorded
from tombola.errors import ConfigError, RunFailure, counted, in_line
from tombola.pruning.protect import protected_names
from tombola.pruning.prunable import weight_layouts
from tombola.reports.terminal import drawn, say
from tombola.runs.columns import misfit
from tombola.runs.folder import RunFolder, run_folder
from tombola.runs.rows import Row, damaged, rows_of
from tombola.studies.base.output import Numbers
from tombola.studies.base.study import Plan, Study
from tombola.studies.base.work import Work, unit_rows
from tombola.studies.compress.config import CompressConfig
from tombola.studies.compress.costs import Costs
from tombola.studies.compress.forms import Workshop, form_of, refuse_missing
from tombola.studies.compress.making import Shape
from tombola.studies.compress.metrics import CHECKS, MADE, SCHEMA, UNIT, parent_row, test_row, untested_row
from tombola.studies.compress.outcome import UNITS, Candidate, Search, key_of, shown_to_programs, summarise
from tombola.studies.compress.paths import paths_of
from tombola.studies.compress.plan import plan_search
from tombola.studies.compress.report import front_table, in_short, lead, remarks, search_page, write_beside
from tombola.studies.compress.search import PathSpec, search_path
from tombola.studies.compress.shipping import MODELS, is_shipped, level_folder, ship, shipped_file
from tombola.studies.compress.target import MEASURED
from tombola.studies.given_model import GivenModel, surroundings_of
from tombola.studies.single.of_parent import own_maker, parent_of, slug
from tombola.studies.single.parents import Parent
from tombola.training.threads import one_thread


class Compress(Study[CompressConfig, Search]):
    """A unit is the parent, a candidate in all its files, what one level costs, or the test."""

    name = "compress"
    config_type = CompressConfig
    unit = UNIT
    schema = SCHEMA
    checks = CHECKS
    apart = ("checkpoints",)

    @classmethod
    def place(cls, config: CompressConfig, out: Path) -> RunFolder:
        return run_folder(out, cls.name, name_of(config.model), config)

    @property
    def called(self) -> str:
        return name_of(self.config.model)

    @functools.cached_property
    def parent(self) -> Parent:
        return parent_of(self.config, self.call)

    @property
    def own_functions(self) -> tuple[str, ...]:
        return (*own_maker(self.config.model), *super().own_functions)

    def facts(self) -> dict[str, Any]:
        refuse_missing(self.config)
        if self.parent.data_record["config"].get("base") is not None and "weight" in self.config.structures:
            raise ConfigError(
                "behind a frozen base a ticket file holds the head alone, which cannot be compared with the whole: "
                "leave single weights out by --structure dense --structure unit"
            )
        protected_names(weight_layouts(self.parent.model), self.config.protect)  # refuses what names no layer
        for name, tensor in self.parent.model.state_dict().items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise ConfigError(f"{self.config.model}: {name} holds NaN or infinity; there is nothing to compress")
        return {
            "parent": self.parent.sha256,
            "data": recorded(self.parent.data) | self.parent.data_record,
        }

    def plan(self, *, quick: bool) -> Plan:
        return plan_search(self.config, self.parent, self.call.workers, quick=quick)

    @functools.cached_property
    def _workshop(self) -> Workshop:
        return Workshop(self.config, self.parent, surroundings_of(self.parent, self.call.data_dir))

    def work(self, work: Work) -> None:
        with one_thread():
            if not rows_of(work.rows, kind="parent"):
                work.append([parent_row(self._given_parent())])
        if self.result(work.rows, {0}).fault is None:  # of one that learned nothing there is nothing to lose
            self._search(work)
            self._measure(work)
        self._test(work)

    def _given_parent(self) -> GivenModel:
        return self._workshop.given(Shape.of(self.parent))

    def _search(self, work: Work) -> None:
        """Every path to its end; rows in the order of paths, whatever the order in which they end."""
        kept = self.result(work.rows, {0}).kept
        if rows_of(work.rows, kind="test") and all(is_shipped(self.folder.root, one) for one in kept):
            return
        (parent,) = rows_of(work.rows, kind="parent")
        facts = self.recorded
        specs = [
            PathSpec(
                self.config,
                path,
                self.folder.checkpoints,
                self.call.data_dir,
                facts["parent"],
                facts["data"]["checksum"],
                parent["validation_accuracy"],
            )
            for path in paths_of(self.config)
        ]
        work.cells(search_path, specs)
        for spec in specs:
            for file in sorted((spec.folder / spec.path.name).glob("level-??.json")):
                work.append(unit_rows(file))

    def _measure(self, work: Work) -> None:
        """Latency and memory: of all that lose little enough where the target asks for them, else of the chosen one."""
        measure = self.config.wanted.measure
        found = self.result(work.rows, {0})
        if measure in MEASURED:
            wanted = [row for row in rows_of(work.rows, kind="candidate") if row["within"]]
        else:
            wanted = [] if found.chosen is None else [_row_of(work.rows, found.chosen)]
        levels: dict[tuple[Any, ...], list[Row]] = {}
        for row in wanted:
            levels.setdefault((row["structure"], row["distribution"], row["level"]), []).append(row)
        busy = 0
        counting = work.watcher.counting("measuring latency" + (" and memory" if measure == "memory" else ""))
        for done, (level, rows) in enumerate(levels.items()):
            counting(done, len(levels))
            if not work.table.holds(("cost", *level)):
                costs = self._costs.rows(rows)
                if measure == "latency" and any(row["clock"] for row in costs):
                    busy += len(costs)
                else:
                    work.append(costs)
        counting(len(levels), len(levels))
        if busy:
            raise RunFailure(
                f"the machine is too busy to measure the latency of {counted(busy, 'file')}: the same command goes on "
                "with these, on a quiet machine; nothing else is lost"
            )

    @functools.cached_property
    def _costs(self) -> Costs:
        return Costs(self._workshop, self.folder.checkpoints, self.config.wanted.measure == "memory")

    def _test(self, work: Work) -> None:
        if rows_of(work.rows, kind="test"):
            return
        chosen = self.result(work.rows, {0}).chosen
        if chosen is None:
            work.append([untested_row()])
            return
        with one_thread():
            network = self._shipped(_row_of(work.rows, chosen))
            work.append([test_row(self._given_parent().network, network, self._workshop.around.data.test)])

    def _shipped(self, row: Row) -> nn.Module:
        """What the file of a candidate computes."""
        form = form_of(row["structure"], row["precision"])
        return self._workshop.computed(form, level_folder(self.folder.checkpoints, key_of(row)))

    def result(self, rows: Sequence[Row], complete: set[int]) -> Search:
        return summarise(self.folder.root, self.config, rows)

    def write(self, result: Search) -> None:
        """The page's companions; and the files to ship, taken out of what there was to continue from."""
        write_beside(self.folder, result)
        for candidate in result.kept:
            if not is_shipped(self.folder.root, candidate):
                ship(level_folder(self.folder.checkpoints, candidate.key), self.folder.root / shipped_file(candidate))
            if not is_shipped(self.folder.root, candidate):
                raise RunFailure(f"{shipped_file(candidate)}: is not the file that was scored; run the command again")

    def model_folder(self, result: Search) -> Path | None:
        return None if result.chosen is None else self.folder.root / shipped_file(result.chosen).parent

    def settle(self, result: Search) -> None:
        shutil.rmtree(self.folder.checkpoints, ignore_errors=True)

    def is_trained(self, name: str) -> bool:
        return name.startswith(f"{MODELS}/")

    def state(self, done: int) -> str:
        return "finished" if done else "begun"

    def report(self, result: Search) -> str:
        return search_page(result)

    def read_rows(self) -> list[Row]:
        """A candidate that was not refused has what was measured of it."""
        rows = super().read_rows()
        for number, row in enumerate(rows, start=1):
            if row["kind"] == "candidate" and row["refused"] is None and (wrong := misfit(row, MADE)):
                raise damaged(self.folder.rows, number, wrong)
        return rows

    @staticmethod
    def show(console: Console, result: Search) -> None:
        """The front, what is to be known, the outcome, and where the model and the page are."""
        if result.front:
            console.print(drawn(front_table(result), left=1))
        for line in remarks(result):
            say(console, line)
        say(console, f"\n{lead(result)}", "bold")
        if result.chosen is not None:
            say(console, f"Model: {in_line(result.folder / shipped_file(result.chosen))}")
        say(console, f"Report: {in_line(result.folder / 'report.html')}")

    @staticmethod
    def numbers(result: Search) -> Numbers:
        """A row for every candidate; what was chosen, and how it did on the test examples."""
        rows = [
            {**shown_to_programs(one), "chosen": one is result.chosen, "front": one in result.front}
            for one in result.candidates
        ]
        said = {
            "target": result.config.target,
            "reached": result.reached,
            "file": None if result.chosen is None else str(shipped_file(result.chosen)),
            "test": None if result.tested is None else vars(result.tested),
        }
        return Numbers(rows, said, UNITS)

    @staticmethod
    def outcome(result: Search) -> str:
        return in_short(result)


def name_of(model: str) -> str:
    """What a search is called: as its model, less what the folder of a run has before and behind its name."""
    return re.sub(r"^(?:train|prune|remove)-(.+)-[0-9a-f]{8}$", r"\1", slug(model))


def _row_of(rows: Sequence[Row], candidate: Candidate) -> Row:
    return next(row for row in rows_of(rows, kind="candidate") if key_of(row) == candidate.key)
