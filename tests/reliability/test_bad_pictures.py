"""A picture that cannot be read is an error that names it; with `--skip-bad` it is left out, and named all the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from small_models import SMALL_PARENT, contents, invoke, one_line
from small_study import SMALL_STUDY
from tombola.runs.configs import load_config
from tombola.studies.single.config import TrainConfig

CLASSES, PICTURES = 3, 40
GRID = {"criteria": ["magnitude"], "sparsities": [0.5], "replicates": 1}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Class folders of pictures, one of which is cut off in the middle."""
    random = np.random.default_rng(0)
    for label in range(CLASSES):
        folder = tmp_path / "pictures" / f"class-{label}"
        folder.mkdir(parents=True)
        for number in range(PICTURES):
            pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    bad = tmp_path / "pictures" / "class-1" / "07.png"
    bad.write_bytes(bad.read_bytes()[:60])
    return tmp_path / "pictures"


def _written(path: Path, content: dict[str, Any], data: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**content, **changes, "data": {"name": "folder", "folder": str(data)}}))
    return path


@pytest.mark.parametrize("command", ["train", "compare", "imp"])
def test_only_with_the_option(command: str, pictures: Path, tmp_path: Path) -> None:
    content = {"train": SMALL_PARENT, "compare": SMALL_PARENT | GRID, "imp": SMALL_STUDY}[command]
    config = _written(tmp_path / "config.yaml", content, pictures, **({"replicates": 1} if command == "imp" else {}))
    workers = () if command == "train" else ("--workers", 1)
    before = contents(pictures)
    one_line(invoke(command, config, "--out", tmp_path / "refused", *workers), "07.png")
    done = invoke(command, config, "--out", tmp_path / "out", "--skip-bad", *workers)
    assert done.exit_code == 0, done.output
    assert "07.png" in done.output
    (run,) = (tmp_path / "out").iterdir()
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["skip_bad"] is True
    assert contents(pictures) == before


def test_the_option_is_the_key(pictures: Path, tmp_path: Path) -> None:
    """`--skip-bad` and `--set data.skip_bad=true` name the same run; and one after the other shows it."""
    config = _written(tmp_path / "train.yaml", SMALL_PARENT, pictures)
    for option in (("--skip-bad",), ("--set", "data.skip_bad=true")):
        assert invoke("train", config, "--out", tmp_path / "out", *option).exit_code == 0
    assert len(list((tmp_path / "out").iterdir())) == 1
    assert not load_config(config, TrainConfig).data.skip_bad


@pytest.mark.parametrize("form", ["keys", "name"])
def test_pruning(form: str, pictures: Path, tmp_path: Path) -> None:
    """Of keys the option becomes one more; a data set that has no pictures to skip refuses it."""
    keys = f"{{name: folder, folder: '{pictures}'}}"
    data = keys if form == "keys" else "digits"
    shown = (
        "prune",
        "lenet-300-100",
        "--sparsity",
        0.5,
        "--finetune",
        "0it",
        "--data",
        data,
        "--out",
        tmp_path / "out",
    )
    if form == "keys":
        one_line(invoke(*shown), "07.png")
        done = invoke(*shown, "--skip-bad")
        assert done.exit_code == 0, done.output
        assert "07.png" in done.output
    else:
        one_line(invoke(*shown, "--skip-bad"), "skip_bad")


@pytest.mark.parametrize("data", [(), ("--data", "")])
def test_pruning_data_that_are_not_named(data: tuple[str, ...], pictures: Path, tmp_path: Path) -> None:
    shutil.rmtree(pictures)
    before = contents(tmp_path)
    child = ("prune", "lenet-300-100", "--sparsity", 0.5, "--out", tmp_path / "child")
    one_line(invoke(*child, "--skip-bad", *data), "--skip-bad", "--data")
    assert contents(tmp_path) == before
