"""What `train`, `prune` and `remove` share: studies of one model, whose run folder becomes that model's folder."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from tombola.errors import RunFailure, StorageError, in_line
from tombola.models import FactorySpec, ModelSpec
from tombola.models.folder import MASKS, WEIGHTS, read_spec, weights_form, write_model_files
from tombola.pruning import Masks
from tombola.reports.page import Section
from tombola.reports.terminal import drawn, say
from tombola.runs.atomic import read_json, write_json
from tombola.runs.configs import C
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.averaging import averaged_look
from tombola.studies.base.header import run_header
from tombola.studies.base.output import Numbers
from tombola.studies.base.study import Study
from tombola.studies.base.work import Work
from tombola.studies.single.metrics import SCHEMA, failed
from tombola.studies.single.report import child_page, lead
from tombola.studies.single.stages import check_line, layers_note, layers_table, stages_note, stages_table
from tombola.training.threads import one_thread
from tombola.training.trained import Trained

METRICS = "metrics.json"
UNITS = {
    **dict.fromkeys(("validation_accuracy", "validation_f1", "test_accuracy", "test_f1", "sparsity"), "fraction"),
    "seconds": "s",
}
"""Of the numbers of a stage."""


@dataclass(frozen=True)
class Result:
    """The rows of one parent or child, and the folder they are in, which is its model folder."""

    folder: Path
    rows: list[Row]

    @property
    def stages(self) -> list[Row]:
        return rows_of(self.rows, kind="stage")

    @property
    def latencies(self) -> list[Row]:
        return rows_of(self.rows, kind="latency")

    @property
    def layers(self) -> list[Row]:
        return rows_of(self.rows, kind="layer")


@dataclass(frozen=True)
class Made:
    """A model as it is kept: its rows, what was checked of it, and what its folder says of how it was made."""

    rows: Sequence[Row]
    checks: Mapping[str, Any]
    spec: ModelSpec | FactorySpec
    model: nn.Module
    masks: Masks | None
    history: Mapping[str, Any]


class OneModel(Study[C, Result]):
    """A unit is all rows of a kind. The model is made by the process itself, and kept as a whole."""

    unit = ("kind",)
    schema = SCHEMA
    apart = ("checkpoints",)

    @property
    @abstractmethod
    def title(self) -> str:
        """Of the page."""

    @abstractmethod
    def make(self) -> Made:
        """The model, made from the start or from where a killed process has left it."""

    def work(self, work: Work) -> None:
        with one_thread():
            self._keep(self.make(), work)

    def settle(self, result: Result) -> None:
        """What there is to continue from goes last: a kill before costs no training."""
        shutil.rmtree(self.folder.checkpoints, ignore_errors=True)

    def _keep(self, made: Made, work: Work) -> None:
        """Rows, metrics, the model; RunFailure where a check failed, before the model."""
        for kind in dict.fromkeys(row["kind"] for row in made.rows):
            work.append(rows_of(made.rows, kind=kind))
        # From the table: of a run that was killed here, it may hold times that were measured then.
        metrics: dict[str, Any] = {"stages": rows_of(work.rows, kind="stage"), "checks": dict(made.checks)}
        if latencies := rows_of(work.rows, kind="latency"):
            metrics["latency"] = latencies
        path = self.folder.root / METRICS
        write_json(path, metrics)
        if failures := failed(made.checks):
            raise RunFailure(f"self-check failed: not so: {'; '.join(failures)}; see {path}")
        write_model_files(self.folder.root, made.spec, made.model, made.masks, dict(made.history))

    def state(self, done: int) -> str:
        return "finished" if done else "begun"

    def is_trained(self, name: str) -> bool:
        return name not in (self.folder.config.name, self.folder.report.name)

    def result(self, rows: Sequence[Row], complete: set[int]) -> Result:
        return Result(self.folder.root, list(rows))

    def report(self, result: Result) -> str:
        verdict = f"{self.outcome(result)} {check_line(read_checks(result.folder))}".strip()
        header = run_header(self.title, verdict, self.folder, getattr(self.config, "seed", None))
        return child_page(header, result.rows, read_spec(result.folder)[1], self.sections(result))

    def sections(self, result: Result) -> Sequence[Section]:
        """What a study has on its page beside what all have."""
        return ()

    @staticmethod
    def show(console: Console, result: Result) -> None:
        """The tables, the checks, the outcome in one sentence and where the model lies."""
        console.print(drawn(stages_table(result.stages, result.latencies), left=1))
        console.print(drawn(layers_table(result.layers)))
        if note := layers_note(result.layers):
            say(console, note)
        say(console, stages_note(result.stages, result.latencies))
        show_end(console, result, lead(result.stages))

    @staticmethod
    def numbers(result: Result) -> Numbers:
        """A row for every stage, its latencies among it; as verdict what was checked."""
        stages = [{**stage, "latency": rows_of(result.latencies, stage=stage["stage"])} for stage in result.stages]
        return Numbers(stages, {"checks": read_checks(result.folder)}, UNITS)

    @staticmethod
    def outcome(result: Result) -> str:
        return lead(result.stages)


def show_end(console: Console, result: Result, outcome: str) -> None:
    """What was checked, the outcome and where the model lies."""
    if line := check_line(read_checks(result.folder)):
        say(console, line)
    say(console, f"\n{outcome}", "bold")
    say(console, on_disk(result.folder))
    say(console, f"Model folder: {in_line(result.folder)}")


def on_disk(root: Path) -> str:
    """What weights and masks take, and in which form the weights lie."""
    size = sum((root / name).stat().st_size for name in (WEIGHTS, MASKS) if (root / name).exists())
    form = weights_form(root)
    said = "kept values only, and a bit a weight" if form == "kept values" else "dense"
    return f"On disk: {size:,} bytes of weights{' and masks' if (root / MASKS).exists() else ''} ({said})."


def read_checks(root: Path) -> dict[str, Any]:
    """What a run in the folder `root` checked, and whether it was so."""
    metrics = read_json(root / METRICS)
    checks = metrics.get("checks") if isinstance(metrics, dict) else None
    if not isinstance(checks, dict):
        raise StorageError(f"{root / METRICS}: has no `checks`, it is damaged; put it back from a copy")
    return checks


def evaluation_rows(trainings: Sequence[Trained]) -> list[Row]:
    """The looks at the validation set, training after training."""
    return [
        {
            "kind": "evaluation",
            "training": number,
            "iteration": look.iteration,
            "validation_loss": look.loss,
            "validation_accuracy": look.accuracy,
            **averaged_look(look, "averaged_validation_"),
        }
        for number, trained in enumerate(trainings, start=1)
        for look in trained.evaluations
    ]
