"""Parents and children small enough to be made in a fraction of a second."""

from __future__ import annotations

import copy
import json
import os
import signal
from pathlib import Path
from typing import Any

from click.testing import Result as CommandResult
from typer.testing import CliRunner

from said import error_in
from tombola.models import load_model
from tombola.models.tensors import content_sha256, load_tensors
from tombola.pruning import Masks
from tombola.runs.configs import validate
from tombola.runs.rows import read_rows
from tombola.studies.base.life import run_study
from tombola.studies.base.study import Call
from tombola.studies.single.config import PruneConfig, RemoveConfig, TrainConfig
from tombola.studies.single.one_model import Result
from tombola.studies.single.prune import Prune
from tombola.studies.single.remove import Remove
from tombola.studies.single.train import Train

SMALL_PARENT: dict[str, Any] = {
    "name": "small",
    "data": {"name": "digits"},
    "model": {"widths": [20, 12]},
    "training": {"length": "60it", "evaluate_every": "20it", "learning_rate": "1e-2"},
}
"""1,640 weights, of which 1,280 are in `fc1`, 240 in `fc2` and 120 in `output`."""
CONVOLUTIONAL: dict[str, Any] = {
    "name": "convolutional",
    "model": {"architecture": "conv2", "widths": [4, 4, 16, 12]},
}
FINE_TUNING: dict[str, Any] = {"length": "12it", "evaluate_every": "4it", "learning_rate": "1e-3"}


def make_parent(out: Path, **changes: Any) -> Result:
    content = copy.deepcopy(SMALL_PARENT) | changes
    return run_study(Train, validate(content, TrainConfig, "parent"), Call(out))


def make_child(model: Path | str, out: Path, pruning: dict[str, Any], **changes: Any) -> Result:
    content = {"model": str(model), "pruning": pruning, "fine_tuning": FINE_TUNING, **changes}
    return run_study(Prune, validate(content, PruneConfig, "child"), Call(out))


def make_smaller(model: Path | str, out: Path, removal: dict[str, Any], **changes: Any) -> Result:
    content = {"model": str(model), "removal": removal, **changes}
    return run_study(Remove, validate(content, RemoveConfig, "smaller"), Call(out))


def masks_of(folder: Path, factory: Any = None) -> Masks:
    masks = load_model(folder, factory)[2]
    assert masks is not None
    return masks


def die_at_write(at: int, before: bool) -> None:
    """From now on this process, a fork of the tests', kills itself at its `at`-th write, before or after it."""
    real, seen = os.fsync, [0]

    def fsync(descriptor: int) -> None:
        seen[0] += 1
        if before and seen[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor)
        if seen[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = fsync


def invoke(*arguments: object) -> CommandResult:
    """Runs the command line in this process."""
    from tombola.cli import app

    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def one_line(result: CommandResult, *parts: str, code: int = 2) -> None:
    """The promise of the command line: one line that names what is wrong, and no traceback."""
    assert result.exit_code == code, result.output
    said = error_in(result.stderr)
    assert "Traceback" not in result.output
    for part in parts:
        assert part in said, said


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by name."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def what_must_agree(folder: Path) -> dict[str, Any]:
    """What two runs of one config have alike: rows without times, tensors, documents, the names of all files."""
    rows = [{k: v for k, v in row.items() if k not in ("seconds", "clock")} for row in read_rows(folder / "rows.jsonl")]
    found: dict[str, Any] = {"rows": sorted(json.dumps(row, sort_keys=True) for row in rows)}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = content_sha256(load_tensors(path)[0]) if path.suffix == ".safetensors" else ""
    if (folder / "spec.json").exists():
        found["spec.json"] = (folder / "spec.json").read_text()
    if (folder / "metrics.json").exists():
        metrics = json.loads((folder / "metrics.json").read_text())
        for row in metrics.get("latency", []):
            del row["seconds"]
        found["metrics.json"] = metrics
    return found
