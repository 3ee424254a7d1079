"""Averaged weights in studies: scored beside the raw ones, stored beside them, and without effect on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import own_models
from small_study import SMALL_STUDY, run_lottery
from tombola.cli import app
from tombola.data import DataConfig, load_data
from tombola.models.folder import load_model
from tombola.models.tensors import load_tensors
from tombola.runs.configs import validate
from tombola.runs.rows import Row, read_rows, rows_of
from tombola.studies.base.life import run_study
from tombola.studies.base.study import Call
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.single.config import PruneConfig
from tombola.studies.single.prune import Prune
from tombola.studies.single.stages import stages_table
from tombola.training.metrics import evaluate

TIMES = {"seconds"}


def lottery(folder: Path, ema: float | None) -> tuple[Path, list[Row]]:
    content = {**SMALL_STUDY, "replicates": 1, "training": {**SMALL_STUDY["training"], "ema": ema}}  # type: ignore[dict-item]
    result = run_lottery(LotteryConfig.model_validate(content), folder, workers=1)
    return result.folder.root, [row for row in result.rows if row["kind"] in ("training", "evaluation")]


def test_a_lottery_scores_the_average_beside_the_raw_weights(tmp_path: Path) -> None:
    (_, plain), (root, averaging) = (lottery(tmp_path / str(ema), ema) for ema in (None, 0.5))
    added = {column for row in averaging for column in row if column.startswith("averaged_")}
    assert {"averaged_test_accuracy", "averaged_validation_loss", "averaged_loss"} <= added
    assert all("averaged_test_accuracy" in row for row in rows_of(averaging, kind="training"))
    assert all("averaged_loss" in row for row in rows_of(averaging, kind="evaluation"))
    assert [without(row, added | TIMES) for row in averaging] == [without(row, TIMES) for row in plain]
    assert len(list(root.glob("checkpoints/**/averaged.safetensors"))) == len(
        list(root.glob("checkpoints/**/trained.safetensors"))
    )


def without(row: Row, columns: set[str]) -> Row:
    return {column: value for column, value in row.items() if column not in columns}


def test_a_training_writes_the_average_that_it_measured(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "name": "averaged",
        "data": {"name": "digits"},
        "model": {"widths": [20, 10]},
        "training": {"length": "60it", "evaluate_every": "20it", "ema": 0.5},
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(config))
    done = CliRunner().invoke(app, ["train", str(tmp_path / "train.yaml"), "--out", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    assert "test accuracy, averaged weights" in done.output
    (root,) = (folder for folder in (tmp_path / "runs").iterdir() if folder.is_dir())
    model, _, _ = load_model(root)
    data = load_data(DataConfig(name="digits"), 0)
    model.load_state_dict(load_tensors(root / "averaged.safetensors")[0])
    shown = f"{evaluate(model, data.test).accuracy:.2%}"
    (line,) = (line for line in done.output.splitlines() if "averaged weights" in line)
    assert shown in line


AVERAGING = {"length": "30it", "evaluate_every": "10it", "ema": 0.5}
COMPARISON: dict[str, Any] = {
    "name": "averaged",
    "replicates": 1,
    "data": {"name": "digits"},
    "model": {"widths": [20, 10]},
    "training": AVERAGING,
    "fine_tuning": AVERAGING,
    "criteria": ["magnitude"],
    "sparsities": [0.5],
}


def test_a_comparison_measures_and_shows_the_average_of_parents_and_ways(tmp_path: Path) -> None:
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(COMPARISON))
    done = CliRunner().invoke(app, ["compare", str(tmp_path / "compare.yaml"), "--out", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    (root,) = (tmp_path / "runs").glob("compare-*")
    parent, way = read_rows(root / "rows.jsonl")
    assert 0 < parent["averaged_test_accuracy"] < 1
    assert 0 < way["averaged_validation_loss"] < 9
    assert way["averaged_test_accuracy"] != way["test_accuracy"]  # seeds and length are chosen so
    assert f"{100 * way['averaged_test_accuracy']:.2f}" in (root / "summary.md").read_text()
    assert "Averaged weights" in (root / "summary.md").read_text()


def test_a_fine_tuning_writes_and_shows_the_average_that_it_measured(tmp_path: Path) -> None:
    asked = {"model": "own_models:dense", "data": {"name": "digits"}, "pruning": {"sparsity": 0.5}}
    config = validate({**asked, "fine_tuning": AVERAGING}, PruneConfig, "x")
    result = run_study(Prune, config, Call(tmp_path / "child"))
    model, _, masks = load_model(result.folder, own_models.dense)
    model.load_state_dict(load_tensors(result.folder / "averaged.safetensors")[0])
    assert masks is not None
    assert masks.removed_nonzeros(model) == 0
    shown = f"{evaluate(model, load_data(DataConfig(name='digits'), 0).test).accuracy:.2%}"
    (line,) = (row for row in stages_table(result.stages).rows if "averaged weights" in row[0])
    assert line[1:] == ("–", "–", shown)  # the parent was not trained here


@pytest.mark.parametrize("ema", ["0", "2"])
def test_a_window_that_is_no_fraction_is_one_line(ema: str, tmp_path: Path) -> None:
    (tmp_path / "imp.yaml").write_text(yaml.safe_dump(SMALL_STUDY))
    done = CliRunner().invoke(app, ["imp", str(tmp_path / "imp.yaml"), "--set", f"training.ema={ema}"])
    assert done.exit_code == 2
    assert "training.ema" in done.output
