"""`tombola stress`: every network pruned and made to learn one task after the other; what they come to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tombola.errors import PruningError, RunFolderError, counted
from tombola.models.causal.heads import select_heads, select_neurons
from tombola.runs.folder import RunFolder, holds_nothing
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.output import Numbers
from tombola.studies.base.own_code import library_facts
from tombola.studies.base.study import Plan, Study
from tombola.studies.base.watching import Progress
from tombola.studies.base.work import Work
from tombola.studies.stress import search
from tombola.studies.stress.cells import KEY, CellKey, cells_of, life_of
from tombola.studies.stress.config import DENSE, StressConfig, label_of
from tombola.studies.stress.living.cell import CellSpec
from tombola.studies.stress.living.keeping import MODEL
from tombola.studies.stress.living.life import live
from tombola.studies.stress.living.removing import wanted
from tombola.studies.stress.outcome.result import Stress as Outcome
from tombola.studies.stress.outcome.summarised import summarise
from tombola.studies.stress.plan import plan_stress
from tombola.studies.stress.report import stress_page
from tombola.studies.stress.schema import CHECKS, SCHEMA, UNIT
from tombola.studies.stress.shown.journal import JOURNAL
from tombola.studies.stress.shown.terminal import numbers, outcome, show_result
from tombola.studies.stress.subjects.curriculum import Curriculum, checksum_of, texts_of
from tombola.studies.stress.subjects.networks import Subject, open_subject
from tombola.studies.stress.tree import gather, protocol_of, write_tree


class Stress(Study[StressConfig, Outcome]):
    """A unit is a moment in the life of a network: it is pruned, learns a task, or is looked at."""

    name = "stress"
    config_type = StressConfig
    unit = UNIT
    schema = SCHEMA
    checks = CHECKS
    apart = ("checkpoints",)

    @classmethod
    def place(cls, config: StressConfig, out: Path) -> RunFolder:
        """The folder that was given is the run's own: so its users expect it."""
        return RunFolder(out)

    def check(self) -> None:
        root = self.folder.root
        if root.is_symlink():
            raise RunFolderError(f"{root}: is a link; name the folder itself as --output_dir")
        if not self.folder.manifest.exists():
            if root.is_dir() and not holds_nothing(root):
                raise RunFolderError(f"{root}: holds files of something else; name a new folder as --output_dir")
            return
        begun = self.folder.read_manifest()["must_match"].get("study")
        if begun != self.name:
            raise RunFolderError(f"{root}: a run of the study {begun}; name another folder as --output_dir")
        if odd := _differing(self.folder.read_config(StressConfig), self.config):
            raise RunFolderError(
                f"{root}: holds another stress evaluation (other {', '.join(odd)}); name another folder as "
                "--output_dir, or give what that one was begun with to continue it"
            )

    def facts(self) -> dict[str, Any]:
        subjects = self._subjects()
        models = {subject.label: subject.loaded.sha256 for subject in subjects}
        libraries = library_facts({type(subject.reference) for subject in subjects})
        return {"models": models, "tasks": checksum_of(self.config), **libraries}

    def _subjects(self) -> list[Subject]:
        """All models; what cannot be run is refused before anything is learned."""
        texts_of(self.config, 0)  # a file of tasks that cannot be read, before models are
        subjects = [self._subject(model) for model in self.config.model]
        for subject in subjects:
            refuse_levels(self.config, subject)
            Curriculum(self.config, 0, subject.tokenizer).refuse_unreadable()
        return subjects

    def _subject(self, model: str) -> Subject:
        return open_subject(model, self.config.quick, self._pretraining)

    def _pretraining(self, done: int, total: int, nats: float) -> None:
        said = f"{nats:.2f} nats a token"
        self.call.watcher.progress(Progress("pre-training the tiny model, once", done, total, said))

    def plan(self, *, quick: bool) -> Plan:
        return plan_stress(self.config, self._subjects(), self.call.workers, quick=quick)

    def work(self, work: Work) -> None:
        if self.config.search is None:
            self._live(work, [key for seed in range(self.replicates) for key in cells_of(self.config, seed)])
            return
        self._live(work, [CellKey(label_of(self.config.model[0]), DENSE)])
        search.search(self.config, work.rows, lambda key: self._live(work, [key]), work.append)

    def _live(self, work: Work, keys: Sequence[CellKey]) -> None:
        lived = set(self._lived(work.rows))
        left = [key for key in keys if key not in lived]
        if not left:
            return
        units = len(life_of(self.config, len(texts_of(self.config, 0))))
        work.watcher.begin("units", len(keys) * units, (len(keys) - len(left)) * units, work.workers)
        work.cells(live, [self._spec(key) for key in left])

    def _spec(self, key: CellKey) -> CellSpec:
        model = next(model for model in self.config.model if label_of(model) == key.model)
        return CellSpec(self.config, key, model, self.folder.checkpoints, self.recorded["models"][key.model])

    def _lived(self, rows: Sequence[Row]) -> Iterator[CellKey]:
        """The cells of which every row is in the table: of a unit that a kill tore, the last rows are not.

        Each scores all tasks in its first unit.
        """
        tasks = {row["task"] for row in rows_of(rows, kind="score")}
        last, ends = len(life_of(self.config, len(tasks))) - 1, "function" if self.config.function else "state"
        yield from {_cell(row) for row in rows if row["unit"] == last and row["kind"] == ends}

    def complete(self, rows: Sequence[Row]) -> set[int]:
        if self.config.search is not None:
            return {0} if search.is_spent(self.config, rows) else set()
        lived = set(self._lived(rows))
        return {seed for seed in {key.seed for key in lived} if lived.issuperset(cells_of(self.config, seed))}

    def state(self, done: int) -> str:
        if self.config.search is not None:
            return "finished" if done else "begun"
        return f"{done} of {self.replicates} seeds"

    def described(self, rows: Sequence[Row]) -> str:
        first = rows[0]
        who = f"{first['strategy']} {first['level']:g}" if first["level"] else first["strategy"]
        done = next((row["training"] for row in rows if row["kind"] == "phase"), None)
        return f"{who}, seed {first['seed']}, cycle {first['cycle']}: {done or 'looked at'}"

    def result(self, rows: Sequence[Row], complete: set[int]) -> Outcome:
        """Rows in the order of cells, whatever the order in which they ended."""
        if self.config.search is not None:
            return summarise(self.folder.root, self.config, rows)
        order = {key: place for seed in sorted(complete) for place, key in enumerate(cells_of(self.config, seed))}
        placed = [(row["seed"], order[_cell(row)], row["unit"], row) for row in rows if row["seed"] in complete]
        return summarise(self.folder.root, self.config, [row for *_, row in sorted(placed, key=lambda one: one[:3])])

    def write(self, result: Outcome) -> None:
        write_tree(self.folder, result)

    def is_trained(self, name: str) -> bool:
        return name.endswith(f"/{JOURNAL.name}") or f"/{MODEL}/" in name

    def settle(self, result: Outcome) -> None:
        shutil.rmtree(self.folder.checkpoints, ignore_errors=True)

    def report(self, result: Outcome) -> str:
        """The page. It shows journals, which lie where cells left them until then."""
        gather(self.folder, result)
        return stress_page(result, protocol_of(self.config))

    @staticmethod
    def show(console: Console, result: Outcome) -> None:
        show_result(console, result)

    @staticmethod
    def numbers(result: Outcome) -> Numbers:
        return numbers(result)

    @staticmethod
    def outcome(result: Outcome) -> str:
        return outcome(result)


def _cell(row: Row) -> CellKey:
    return CellKey(*(row[name] for name in KEY))


def refuse_levels(config: StressConfig, subject: Subject) -> None:
    """PruningError, before anything is learned, for a level that removes nothing, or all that a layer has."""
    units = [subject.heads if config.structure == "head" else subject.neurons] * subject.layers
    for level in config.levels:
        if not wanted(level, units, config.equal):
            what = counted(sum(units), config.structure)
            raise PruningError(f"the level {level:g} removes none of the {what} of {subject.label}; give a larger one")
        if config.structure == "head":
            select_heads(torch.zeros(subject.layers, subject.heads), level, equal=config.equal)
        else:
            select_neurons([torch.zeros(subject.neurons)] * subject.layers, level, equal=config.equal)


def _differing(begun: StressConfig, asked: StressConfig) -> list[str]:
    """The keys in which two configs would give different results."""
    ours, theirs = begun.identity(), asked.identity()
    return sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
