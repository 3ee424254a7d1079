"""Small finished runs of every cheap kind, made once, and the commands that look at them or go on with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from click.testing import Result
from typer.testing import CliRunner

from said import error_in
from small_study import SMALL_STUDY

KINDS = ("train", "imp", "prune", "compare", "compress")
DIGITS = {"name": "digits"}
TRAINING = {"length": "8it", "evaluate_every": "4it", "learning_rate": "1e-2"}
PARENT = {"name": "small", "data": DIGITS, "model": {"widths": [6, 5]}, "training": TRAINING}
STUDIES: dict[str, dict[str, Any]] = {
    "train": {"study": "train", **PARENT},
    "imp": {
        **SMALL_STUDY,
        "model": {"widths": [6, 5]},
        "training": TRAINING,
        "pruning": {"densities": [0.5, 0.3]},
        "controls": ["random"],
    },
    "compare": {
        "study": "compare",
        **PARENT,
        "replicates": 2,
        "criteria": ["magnitude", "random"],
        "sparsities": [0.5],
    },
}
FOLDERS = {
    "train": "train-*",
    "imp": "lottery-*",
    "prune": "prune-child",
    "compare": "compare-*",
    "compress": "compress-*",
}
SEARCH = ("--target", "bytes=0.9", "--max-drop", "90%", "--finetune", "0it", "--refinements", 0)
ALONG = ("--structure", "weight", "--distribution", "global", "--workers", 1)
MEASURED = ("seconds", "clock")


def invoke(*arguments: object) -> Result:
    """The command line in this process."""
    from tombola.cli import app

    return CliRunner().invoke(app, [str(argument) for argument in arguments])


class Runs:
    """Finished runs of each kind below `root`; `restore` puts one there again as it was made."""

    def __init__(self, root: Path, seed: int = 0) -> None:
        self.root, self.seed, self.out = root, seed, root / "runs"
        self.out.mkdir(parents=True)
        for kind, study in STUDIES.items():
            (root / f"{kind}.yaml").write_text(yaml.safe_dump(study | {"seed": seed}))
        self.folders: dict[str, Path] = {}
        self.made: dict[str, Result] = {}
        for kind in KINDS:
            made = self.made[kind] = self.go_on(kind)
            assert made.exit_code == 0, made.output
            (self.folders[kind],) = self.out.glob(FOLDERS[kind])
        shutil.copytree(self.out, root / "kept")

    def go_on(self, kind: str, *more: object) -> Result:
        """The command that made the run of this kind, again."""
        if kind == "prune":
            options = ("--sparsity", 0.5, "--finetune", "6it", "--seed", self.seed, "--out", self.out / "prune-child")
            return invoke("prune", self.folders["train"], *options, *more)
        if kind == "compress":
            folder = ("--seed", self.seed, "--out", self.out)
            return invoke("compress", self.folders["train"], *SEARCH, *ALONG, *folder, *more)
        workers = () if kind == "train" else ("--workers", 1)
        return invoke(kind, self.root / f"{kind}.yaml", "--out", self.out, *workers, *more)

    def kept(self, kind: str) -> Path:
        """The run as it was made; not to be changed."""
        return self.root / "kept" / self.folders[kind].name

    def restore(self, kind: str) -> Path:
        """The folder of the run, with the content that it was made with."""
        shutil.rmtree(self.folders[kind], ignore_errors=True)
        return Path(shutil.copytree(self.kept(kind), self.folders[kind]))

    def restored(self) -> Runs:
        """These runs, each with the content that it was made with."""
        for kind in self.folders:
            self.restore(kind)
        return self


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its path in it."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def numbers_of(folder: Path) -> dict[str, Any]:
    """What must be the same after a run was mended: everything but what was measured with a clock."""
    found: dict[str, Any] = {}
    for name, content in files_of(folder).items():
        if name.endswith((".safetensors", ".npy")):
            found[name] = content
        elif name == "rows.jsonl":
            rows = [json.loads(line) for line in content.splitlines()]
            found[name] = sorted(
                json.dumps({k: v for k, v in row.items() if k not in MEASURED}, sort_keys=True)
                for row in rows
                if row["kind"] != "latency"
            )
    return found


def one_line(result: Result) -> str | None:
    """The error that a command ended with, in one line; None where it succeeded. Never anything else."""
    assert "Traceback" not in result.output
    assert "internal error" not in result.output
    if result.exit_code == 0:
        return None
    assert result.exit_code == 2, result.output
    return error_in(result.stderr)
