"""What a finished training or pruning left in its folder, for a table, a page or a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tombola.errors import RunFailure
from tombola.models import FactorySpec, ModelSpec
from tombola.models.folder import SPEC, write_model_files
from tombola.pruning import Masks
from tombola.runs.atomic import storage_errors, write_json, write_text
from tombola.runs.folder import RunFolder
from tombola.runs.rows import Row, RowTable, read_rows, rows_of
from tombola.studies.single.metrics import broken
from tombola.studies.single.report import child_page
from tombola.training.fit import Trained

METRICS = "metrics.json"
UNIT = ("kind",)


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


def read_result(folder: RunFolder) -> Result | None:
    """The result of a finished run; None while it is not."""
    with storage_errors("look into", folder.root):
        if not (folder.manifest.exists() and (folder.root / SPEC).exists()):
            return None
    folder.read_manifest()
    return Result(folder.root, read_rows(folder.rows, UNIT))


def evaluation_rows(trainings: Sequence[Trained]) -> list[Row]:
    """The looks at the validation set, training after training."""
    return [
        {
            "kind": "evaluation",
            "training": number,
            "iteration": look.iteration,
            "validation_loss": look.loss,
            "validation_accuracy": look.accuracy,
        }
        for number, trained in enumerate(trainings, start=1)
        for look in trained.evaluations
    ]


def write_result(
    folder: RunFolder,
    rows: Sequence[Row],
    checks: Mapping[str, Any],
    spec: ModelSpec | FactorySpec,
    model: nn.Module,
    masks: Masks | None,
    history: Mapping[str, Any],
    title: str,
) -> Result:
    """Rows, metrics, page and model files, the model's spec last; RunFailure when a check failed, before the model."""
    table = RowTable(folder.rows, UNIT)
    for kind in dict.fromkeys(row["kind"] for row in rows):
        table.append_unit(rows_of(rows, kind=kind))
    # From the table: of a run that was killed here, it may hold times that were measured then.
    metrics: dict[str, Any] = {"stages": rows_of(table.rows, kind="stage"), "checks": dict(checks)}
    if latencies := rows_of(table.rows, kind="latency"):
        metrics["latency"] = latencies
    write_json(folder.root / METRICS, metrics)
    if failures := broken(checks):
        raise RunFailure(f"a promise was broken: {'; '.join(failures)} (not so); see {folder.root / METRICS}")
    write_text(folder.report, child_page(title, table.rows, checks, history))
    write_model_files(folder.root, spec, model, masks, dict(history))
    return Result(folder.root, table.rows)
