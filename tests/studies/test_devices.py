"""`--device`: refused where there is none, and one device from the beginning of a run to its end."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import own_tasks
from small_models import SMALL_PARENT, invoke, one_line
from small_study import SMALL_STUDY, run_lottery
from tombola.cli.options import cores, default_workers
from tombola.data import DataConfig, load_data
from tombola.runs.configs import load_config, validate
from tombola.runs.rows import read_rows
from tombola.studies.base import life
from tombola.studies.lottery import replicate
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.single.config import TrainConfig
from tombola.training.classification import Classification


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


class Elsewhere(Classification):
    """As if its data lay elsewhere: to be used, they have to be moved."""

    moves, here = 0, False

    def on(self, device: torch.device) -> Classification:
        if self.here:
            return self
        Elsewhere.moves += 1
        moved = copy.copy(self)
        moved.here = True
        return moved


def test_a_replicate_moves_its_data_once(tmp_path: Path, monkeypatch: Any) -> None:
    """For trainings, scores, criteria and the statistics of batch norm together."""
    monkeypatch.setattr(replicate, "task_of", lambda *given: Elsewhere(load_data(DataConfig(name="digits"), 0)))
    monkeypatch.setattr(Elsewhere, "moves", 0)
    study = {
        **SMALL_STUDY,
        "replicates": 1,
        "training": {"length": "4it", "evaluate_every": "2it"},
        "pruning": {"criterion": "taylor", "rate": 0.5, "target_density": 0.5},
        "model": {"factory": "own_models:normalised_first"},
    }
    run_lottery(validate(study, LotteryConfig, "x"), tmp_path)
    assert Elsewhere.moves == 1


def test_data_that_are_there_are_not_moved_again() -> None:
    images = Classification(load_data(DataConfig(name="digits"), 0))
    for task in (images, own_tasks.language()):
        assert task.on(torch.device("cpu")) is task
        there = task.on(torch.device("meta"))
        assert there is not task
        assert there.on(torch.device("meta")) is there


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
