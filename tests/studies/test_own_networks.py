"""`model.factory` in a config: a study of a network that somebody's own code makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import own_models
from small_models import FINE_TUNING, SMALL_PARENT, invoke, one_line
from tombola.errors import ConfigError
from tombola.models import ModelConfig, load_model, read_spec
from tombola.runs.configs import validate

OWN = {**SMALL_PARENT, "name": "own", "model": {"factory": "own_models:dense"}}
GRID = {**OWN, "criteria": ["magnitude"], "sparsities": [0.5], "replicates": 1, "fine_tuning": FINE_TUNING}
CONFIGS = {"train": OWN, "compare": GRID}


def config(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("command", CONFIGS)
def test_it_is_trained_and_whose_code_that_is_is_said(command: str, tmp_path: Path) -> None:
    result = invoke(command, config(tmp_path, CONFIGS[command]), "--out", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    assert "own_models:dense makes the network: your own code" in result.output
    (run,) = (tmp_path / "runs").iterdir()
    folder = run if command == "train" else run / "checkpoints" / "replicate-00"
    spec, _ = read_spec(folder)
    assert getattr(spec, "factory", None) == "own_models:dense"
    assert sum(p.numel() for p in load_model(folder, own_models.dense)[0].parameters()) == 64 * 16 + 16 + 160 + 10


@pytest.mark.parametrize("command", CONFIGS)
def test_looking_at_a_run_calls_no_code(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke(command, config(tmp_path, CONFIGS[command]), "--out", tmp_path / "runs").exit_code == 0
    (run,) = (tmp_path / "runs").iterdir()
    monkeypatch.setattr(own_models, "dense", lambda: pytest.fail("called"))
    for looking in (
        ("show", run),
        ("list", "--out", tmp_path / "runs"),
        (command, tmp_path / "own.yaml", "--out", tmp_path / "runs"),
    ):
        assert invoke(*looking).exit_code == 0


@pytest.mark.parametrize("command", CONFIGS)
def test_an_edited_function_does_not_continue_a_run(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(tmp_path, CONFIGS[command])
    with monkeypatch.context() as patch:
        patch.setattr(
            "tombola.studies.single.train.fit" if command == "train" else "tombola.studies.single.grid.fit", stop
        )
        assert invoke(command, path, "--out", tmp_path / "runs").exit_code == 130
    monkeypatch.setattr(own_models, "dense", own_models.lazy)
    one_line(invoke(command, path, "--out", tmp_path / "runs"), "network")


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("own_models:missing", "has no function"),
        ("no_such_module:f", "cannot import"),
        ("own_models:too_few", "not logits of 10 classes"),
    ],
)
def test_a_function_that_makes_no_such_network_leaves_nothing(factory: str, said: str, tmp_path: Path) -> None:
    path = config(tmp_path, {**OWN, "model": {"factory": factory}})
    one_line(invoke("train", path, "--out", tmp_path / "runs"), said)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize("other", [{"widths": [4, 4]}, {"architecture": "lenet5"}, {"dropout": 0.5}])
def test_a_function_makes_all_of_the_network(other: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="makes the whole network: leave"):
        validate({"factory": "own_models:dense", **other}, ModelConfig, "model")
    whole = validate({"factory": "own_models:dense"}, ModelConfig, "model").model_dump()
    assert validate(whole, ModelConfig, "as it was written out").factory == "own_models:dense"
