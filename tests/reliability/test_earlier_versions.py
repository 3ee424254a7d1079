"""A run folder of an earlier version is refused in one line by every command: never misread, never continued.

Most configs keep their hash from version to version, so that a command finds such a folder where its own run would be.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sealing import as_of_earlier_version
from small_hybrid import draw_images, hybrid_study
from small_models import SMALL_PARENT, invoke, make_parent, one_line
from tombola.runs.configs import load_config
from tombola.runs.folder import RunFolder, run_folder
from tombola.runs.sealed import write_sealed
from tombola.studies.hybrid.config import HybridConfig
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.single.config import CompareConfig, TrainConfig

REFUSED = "run folder of an earlier version of Tombola; use the version that made it, or another --out"
STUDIES: dict[str, tuple[str, Any]] = {
    "lottery": ("imp", LotteryConfig),
    "train": ("train", TrainConfig),
    "compare": ("compare", CompareConfig),
    "hybrid": ("hybrid", HybridConfig),
}


def as_it_was(folder: RunFolder, study: str) -> None:
    """What an earlier version left of a study: keys, rows and an inventory that this one does not know."""
    folder.root.mkdir(parents=True)
    write_sealed(folder.manifest, {"created": "2026-01-01T00:00:00+00:00", "must_match": {"study": study}})
    folder.config.write_text("name: small\npruning: {budget: global}\n")
    folder.rows.write_text('{"kind":"way","budget":"global"}\n')
    write_sealed(folder.root / "finished.json", {"rows": 1, "files": {"gone.txt": {"bytes": 1, "sha256": ""}}})


@pytest.fixture(params=STUDIES)
def study(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def config(study: str, tmp_path: Path, write_config: Any) -> Path:
    if study == "lottery":
        return Path(write_config(tmp_path))
    content = {
        "train": SMALL_PARENT,
        "compare": SMALL_PARENT | {"criteria": ["random", "magnitude"], "sparsities": [0.5]},
        "hybrid": {},
    }[study]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content or hybrid_study(draw_images(tmp_path / "images"))))
    return path


@pytest.fixture
def old(study: str, config: Path, tmp_path: Path) -> RunFolder:
    """The folder in which `config` would be run."""
    asked = load_config(config, STUDIES[study][1])
    folder = run_folder(tmp_path / "runs", study, asked.name, asked)
    as_it_was(folder, study)
    return folder


def test_it_is_not_continued(study: str, config: Path, old: RunFolder, snapshot: Any) -> None:
    before = snapshot(old.root)
    one_line(invoke(STUDIES[study][0], config, "--out", old.root.parent), f"{old.root}: {REFUSED}")
    assert {name: state for name, state in snapshot(old.root).items() if name != "lock"} == before


def test_it_is_not_read(study: str, old: RunFolder, tmp_path: Path, snapshot: Any) -> None:
    before = snapshot(old.root)
    commands: list[tuple[object, ...]] = [("show", old.root)]
    if study in ("lottery", "hybrid"):
        commands.append(("report", old.root))
    if study == "lottery":
        commands.append(("extract", old.root, "--density", 0.5, "--out", tmp_path / "ticket"))
        commands.append(("stability", old.root, "--round", 1))
    for command in commands:
        one_line(invoke(*command), f"{old.root}: {REFUSED}")
    assert snapshot(old.root) == before


def test_it_is_listed_as_what_it_is(old: RunFolder) -> None:
    result = invoke("list", "--out", old.root.parent)
    assert result.exit_code == 0
    assert "run folder of an earlier version of Tombola" in " ".join(result.stdout.split())


def test_no_child_is_pruned_into_it(tmp_path: Path, snapshot: Any) -> None:
    old = RunFolder(tmp_path / "child")
    as_it_was(old, "prune")
    before = snapshot(old.root)
    one_line(
        invoke("prune", "lenet-300-100", "--data", "digits", "--sparsity", 0.5, "--out", old.root),
        f"{old.root}: {REFUSED}",
    )
    assert {name: state for name, state in snapshot(old.root).items() if name != "lock"} == before


def test_what_it_trained_is_a_model_folder_still(tmp_path: Path) -> None:
    """A model folder carries a format of its own, and nothing of the run is read beside it."""
    parent = make_parent(tmp_path).folder
    as_of_earlier_version(parent)
    one_line(invoke("show", parent), REFUSED)
    child = tmp_path / "child"
    result = invoke("prune", parent, "--sparsity", 0.5, "--finetune", "0it", "--out", child)
    assert result.exit_code == 0, result.output
    assert invoke("show", child).exit_code == 0
