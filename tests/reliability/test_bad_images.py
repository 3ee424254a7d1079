"""An image that cannot be read is an error that names it; with `--skip-bad` it is left out, and named all the same."""

from __future__ import annotations

import json
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

CLASSES, IMAGES = 3, 40
GRID = {"criteria": ["magnitude"], "sparsities": [0.5], "replicates": 1}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Class folders of images, one of which is cut off in the middle."""
    random = np.random.default_rng(0)
    for label in range(CLASSES):
        folder = tmp_path / "images" / f"class-{label}"
        folder.mkdir(parents=True)
        for number in range(IMAGES):
            pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    bad = tmp_path / "images" / "class-1" / "07.png"
    bad.write_bytes(bad.read_bytes()[:60])
    return tmp_path / "images"


def _written(path: Path, content: dict[str, Any], data: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**content, **changes, "data": {"name": "folder", "folder": str(data)}}))
    return path


@pytest.mark.parametrize("command", ["train", "compare", "imp"])
def test_only_with_the_option(command: str, images: Path, tmp_path: Path) -> None:
    content = {"train": SMALL_PARENT, "compare": SMALL_PARENT | GRID, "imp": SMALL_STUDY}[command]
    config = _written(tmp_path / "config.yaml", content, images, **({"replicates": 1} if command == "imp" else {}))
    workers = () if command == "train" else ("--workers", 1)
    before = contents(images)
    one_line(invoke(command, config, "--out", tmp_path / "refused", *workers), "07.png")
    done = invoke(command, config, "--out", tmp_path / "out", "--skip-bad", *workers)
    assert done.exit_code == 0, done.output
    assert "07.png" in done.output
    (run,) = (tmp_path / "out").iterdir()
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["skip_bad"] is True
    assert contents(images) == before


def test_the_option_is_the_key(images: Path, tmp_path: Path) -> None:
    """`--skip-bad` and `--set data.skip_bad=true` name the same run; and one after the other shows it."""
    config = _written(tmp_path / "train.yaml", SMALL_PARENT, images)
    for option in (("--skip-bad",), ("--set", "data.skip_bad=true")):
        assert invoke("train", config, "--out", tmp_path / "out", *option).exit_code == 0
    assert len(list((tmp_path / "out").iterdir())) == 1
    assert not load_config(config, TrainConfig).data.skip_bad


@pytest.mark.parametrize("form", ["keys", "name"])
def test_pruning(form: str, images: Path, tmp_path: Path) -> None:
    """Of keys the option becomes one more; a data set that has no images to skip refuses it."""
    keys = f"{{name: folder, folder: '{images}'}}"
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
def test_pruning_data_that_are_not_named(data: tuple[str, ...], images: Path, tmp_path: Path) -> None:
    shutil.rmtree(images)
    before = contents(tmp_path)
    child = ("prune", "lenet-300-100", "--sparsity", 0.5, "--out", tmp_path / "child")
    one_line(invoke(*child, "--skip-bad", *data), "--skip-bad", "--data")
    assert contents(tmp_path) == before


def test_what_is_left_out_or_decided_is_said_and_recorded(images: Path, tmp_path: Path) -> None:
    """Images of other suffixes or none are read; what is no image is named, on stderr and in the manifest."""
    (images / "class-1" / "07.png").unlink()
    for path in sorted((images / "class-2").iterdir())[:8]:
        kind = {"00": "webp", "01": "tif", "02": "jfif", "03": "gif", "04": "JPE", "05": ""}.get(path.stem, "bmp")
        with Image.open(path) as image:
            shown = {"tif": "TIFF", "jfif": "JPEG", "JPE": "JPEG", "": "PNG"}.get(kind, kind.upper())
            image.save(path.with_suffix(f".{kind}" if kind else ""), format=shown)
        path.unlink()
    (images / "class-0" / "list.csv").write_text("a,b")
    config = _written(tmp_path / "config.yaml", SMALL_PARENT, images)
    done = invoke("train", config, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    said = "left aside, as they are no images (1): class-0/list.csv"
    assert said in done.stderr
    assert "images of several suffixes are read: .bmp 2, .gif 1, .jfif 1, .jpe 1, .png 111" in done.stderr
    (run,) = (tmp_path / "out").iterdir()
    recorded = json.loads((run / "manifest.json").read_text())["must_match"]["data"]["said"]
    assert said in recorded
