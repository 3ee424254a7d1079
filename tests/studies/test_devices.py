"""`--device`: refused where there is none, and one device from the beginning of a run to its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from small_models import SMALL_PARENT, invoke, one_line
from small_study import SMALL_STUDY
from tombola.cli.options import cores, default_workers
from tombola.runs.configs import load_config
from tombola.runs.rows import read_rows
from tombola.studies.base import life
from tombola.studies.single.config import TrainConfig


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "parent.yaml"
    path.write_text(yaml.safe_dump({"study": "train", **SMALL_PARENT}))
    return path


COMMANDS: dict[str, tuple[object, ...]] = {
    "train": ("lenet5",),
    "compare": ("criteria",),
    "imp": ("digits",),
    "hybrid": ("apple",),
    "prune": ("lenet-300-100", "--data", "digits", "--sparsity", 0.5),
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_device_that_is_not_here_is_refused_before_anything(command: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = invoke(command, *COMMANDS[command], "--device", "cuda", "--out", out)
    one_line(result, "device", "there is no cuda here, only", "set it to auto or cpu")
    assert result.exit_code == 2
    assert not out.exists()


def test_a_device_without_a_training_is_refused(tmp_path: Path) -> None:
    result = invoke("prune", "lenet-300-100", "--sparsity", 0.5, "--finetune", "0it", "--device", "cpu")
    one_line(result, "--device belongs to the fine-tuning")


def test_a_run_is_continued_where_it_began(config: Path, tmp_path: Path, monkeypatch: Any) -> None:
    out = tmp_path / "out"
    on_the_cpu = ("train", config, "--out", out, "--device", "auto" if not torch.cuda.is_available() else "cpu")
    monkeypatch.setattr(life, "device_facts", lambda config: {"device": [{"type": "cuda", "name": "A100"}]})
    assert invoke(*on_the_cpu).exit_code == 0
    (folder,) = out.iterdir()
    assert "A100" in (folder / "manifest.json").read_text()
    assert load_config(folder / "config.yaml", TrainConfig).training.device == "cpu"  # as it was resolved
    (folder / "finished.json").unlink()
    monkeypatch.undo()
    one_line(invoke(*on_the_cpu), folder.name, "begun with device", "A100", "now none; go on where it was begun")


def test_a_run_on_the_cpu_records_no_device(config: Path, tmp_path: Path) -> None:
    assert invoke("train", config, "--out", tmp_path / "out").exit_code == 0
    (folder,) = (tmp_path / "out").iterdir()
    assert "device" not in json.loads((folder / "manifest.json").read_text())["must_match"]


def test_an_accelerator_is_not_shared_unasked(monkeypatch: Any) -> None:
    training = {"length": "1ep", "evaluate_every": "1ep"}
    config = TrainConfig.model_validate({"name": "a", "data": {"name": "digits"}, "training": training})
    assert default_workers(config) == cores()
    there = config.model_copy(update={"training": config.training.model_copy(update={"device": "cuda"})})
    assert default_workers(there) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that CUDA knows here")
class TestOnARealGpu:
    def test_a_study_runs_there_and_its_order_of_data_is_measured_there(self, tmp_path: Path) -> None:
        path, out = tmp_path / "small.yaml", tmp_path / "out"
        path.write_text(yaml.safe_dump(SMALL_STUDY))
        done = invoke("imp", path, "--out", out, "--device", "cuda")
        assert done.exit_code == 0, done.output
        (folder,) = out.iterdir()
        assert json.loads((folder / "manifest.json").read_text())["must_match"]["device"][0]["type"] == "cuda"
        trained = [row for row in read_rows(folder / "rows.jsonl") if row["kind"] == "training"]
        assert {row["engine"] for row in trained} == {"dense"}
        measured = invoke("stability", folder, "--round", 0)
        assert measured.exit_code == 0, measured.output
        one_line(invoke("stability", folder, "--round", 1, "--device", "cpu"), "begun with device", "now none")

    def test_one_model_is_trained_pruned_and_fine_tuned_there(self, config: Path, tmp_path: Path) -> None:
        assert invoke("train", config, "--out", tmp_path / "out", "--device", "cuda").exit_code == 0
        (folder,) = (tmp_path / "out").iterdir()
        how = ("--sparsity", 0.5, "--criterion", "taylor", "--finetune", "12it", "--out", tmp_path / "child")
        pruned = invoke("prune", folder, *how, "--device", "cuda")
        assert pruned.exit_code == 0, pruned.output
