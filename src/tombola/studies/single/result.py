"""What a finished training or pruning left in its folder, for a table, a page or a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tombola.errors import RunFailure, StorageError
from tombola.models import FactorySpec, ModelSpec
from tombola.models.folder import read_spec, write_model_files
from tombola.pruning import Masks
from tombola.runs.atomic import read_json, storage_errors, write_json, write_text
from tombola.runs.configs import Config
from tombola.runs.folder import RunFolder, writing
from tombola.runs.inventory import Findings, findings, is_finished, refuse, seal, unseal, warn
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.averaging import averaged_look
from tombola.studies.single.columns import SCHEMA
from tombola.studies.single.metrics import broken
from tombola.studies.single.report import child_page
from tombola.training.trained import Trained

METRICS = "metrics.json"
UNIT = ("kind",)
APART = ("checkpoints",)
"""What is only there to continue from."""
WRITTEN_AGAIN = frozenset(("config.yaml", "report.html"))
"""Files of a finished run that need no training to be made anew."""


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


def read_result(folder: RunFolder, *, quick: bool = False) -> Result | None:
    """The result of a finished run; None while it is not. RunFolderError where its files are not what they were.

    With `quick` the content of large files is not read.
    """
    if not _said_finished(folder):
        return None
    result = _read(folder)
    refuse(folder, findings(folder, quick=quick))
    return result


def finished_result(folder: RunFolder, config: Config, title: str) -> Result | None:
    """As `read_result`, for the command that made the run: what is gone it makes anew, page and config at once.

    None where it has to go on, or to begin.
    """
    if not _said_finished(folder):
        return None
    found = findings(folder)
    if found is None or found.rows_are_gone:
        return None
    refuse(folder, Findings(altered=tuple(name for name in found.altered if name not in WRITTEN_AGAIN)))
    if not found:
        return _read(folder)
    if not {*found.gone, *found.altered} <= WRITTEN_AGAIN:
        return None
    warn(folder, found)
    return _write_again(folder, config, title)


def _said_finished(folder: RunFolder) -> bool:
    """Whether the last file, the inventory, is there."""
    with storage_errors("look into", folder.root):
        return folder.manifest.exists() and is_finished(folder)


def _read(folder: RunFolder) -> Result:
    return Result(folder.root, folder.read_rows(UNIT, SCHEMA))


def _write_again(folder: RunFolder, config: Config, title: str) -> Result:
    """Config and page of a finished run, which are made of what else is there."""
    with writing(folder):
        result = _read(folder)
        unseal(folder)
        folder.write_config(config)
        write_text(folder.report, child_page(title, result.rows, read_checks(folder.root), read_spec(folder.root)[1]))
        seal(folder, APART)
    return result


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
    """Rows, metrics, page, model files, the inventory last; RunFailure when a check failed, before the model."""
    table = folder.table(UNIT, SCHEMA)  # damage to it is refused while the folder still says what it consists of
    unseal(folder)
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
    seal(folder, APART)
    return Result(folder.root, table.rows)
