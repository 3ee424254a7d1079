"""`tombola export` of what the other commands made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from finished_runs import invoke, one_line
from small_models import make_child, make_parent
from small_study import SMALL_STUDY, run_lottery
from tombola.data import DataConfig, load_data
from tombola.models import load_model
from tombola.runs.configs import validate
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.networks import trained_network
from tombola.studies.lottery.result import Result


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned child; it and its parent normalise their inputs."""
    home = tmp_path_factory.mktemp("models")
    data = {"name": "digits", "normalise": True}
    parent = make_parent(home, data=data, training={"length": "20it", "evaluate_every": "20it"})
    return make_child(parent.folder, home / "child", {"sparsity": 0.8}, fine_tuning=None).folder


@pytest.fixture(scope="module")
def lottery(tmp_path_factory: pytest.TempPathFactory) -> Result:
    study = SMALL_STUDY | {"replicates": 1, "controls": [], "training": {"length": "8it", "evaluate_every": "8it"}}
    return run_lottery(validate(study, LotteryConfig, "small"), tmp_path_factory.mktemp("lottery"))


def exported(*arguments: object) -> dict[str, Any]:
    result = invoke("export", *arguments, "--json", "-q")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_child_takes_pixels(child: Path, tmp_path: Path) -> None:
    """From 0 to 1, as they are in the data: the file normalises them as the child wants them."""
    said = exported(child, "--out", tmp_path / "net.pt2")
    model, spec, masks = load_model(child)
    assert masks is not None
    assert spec.normalisation.std != (1.0,)
    raw, normalised = (load_data(DataConfig(name="digits", normalise=how), seed=0) for how in (False, True))
    with torch.no_grad():
        found = torch.export.load(tmp_path / "net.pt2").module()(raw.test.inputs)
        assert torch.allclose(found, model.eval()(normalised.test.inputs), atol=1e-5)
    assert said["verdict"] == {
        "drop": 0.0,
        "test_examples": 360,
        "weights": masks.total,
        "removed": masks.total - masks.kept,
        "zeros": masks.total - masks.kept,
        "not_seen": [],
    }
    assert [(row["engine"], row["precision"], row["threads"]) for row in said["table"]] == [
        ("torch eager", "float32", 1),
        ("torch.export", "float32", 1),
    ]
    assert said["table"][0]["accuracy"] == said["table"][1]["accuracy"]
    assert said["paths"] == {"file": str(tmp_path / "net.pt2")}


def test_a_run_gives_its_trained_ticket(lottery: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a person sees it; the file has the run's name, and the table fits 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    shown = invoke("export", lottery.folder.root, "--to", "pt2")
    assert shown.exit_code == 0, shown.output
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "No room for" not in shown.stdout
    assert "removed of" in shown.stdout
    assert "measuring latency" in shown.stderr
    (file,) = tmp_path.iterdir()
    assert file.name == "small.pt2"
    network, _, masks = trained_network(lottery.folder, lottery.config.rewinds[0], 0, lottery.ticket_round)
    state = torch.export.load(file).state_dict
    assert torch.equal(state["fc1.weight"], network.get_submodule("fc1").weight)
    assert not state["fc1.weight"][~masks["fc1.weight"].keep].any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "'nothing' is no folder"),
        (["lenet"], "lenet"),
        (["lenet5"], "records no data: say which with --data"),
        (["digits"], "a config; run it with: tombola imp digits"),
        (["child", "--out", "net.tflite"], "its name says no format"),
        (["child", "--out", "net.onnx", "--to", "pt2"], "a name that ends with .pt2"),
        (["child", "--to", "tflite"], "unknown format 'tflite'"),
        (["child", "--to", "keras", "--int8"], "int8 goes into ONNX files"),
        (["child", "--max-drop", "lots"], "--max-drop lots: a fraction of accuracy"),
        (["child", "--max-drop", "120%"], "--max-drop 120%: a fraction of accuracy"),
        (["child", "--out", "missing/net.onnx"], "missing is no folder"),
        (["lottery", "--data", "digits"], "a run has its own weights and data"),
    ],
)
def test_what_is_refused_is_said_in_a_line(
    arguments: list[str], said: str, child: Path, lottery: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"child": child, "lottery": lottery.folder.root}
    found = one_line(invoke("export", *(places.get(argument, argument) for argument in arguments)))
    assert found is not None
    assert said in found
    assert list(tmp_path.iterdir()) == []


def test_the_function_of_a_run_is_called_where_the_command_names_it(tmp_path: Path) -> None:
    """A run folder may be a stranger's, and so may the function that its config names."""
    study = SMALL_STUDY | {"replicates": 1, "controls": [], "training": {"length": "8it", "evaluate_every": "8it"}}
    study |= {"model": {"factory": "own_models:dense"}, "pruning": {"densities": [0.5]}}
    run = run_lottery(validate(study, LotteryConfig, "own"), tmp_path / "runs").folder.root
    file = tmp_path / "own.pt2"
    assert "--factory own_models:dense" in str(one_line(invoke("export", run, "--to", "pt2", "--out", file)))
    assert not file.exists()
    assert invoke("export", run, "--factory", "own_models:dense", "--to", "pt2", "--out", file).exit_code == 0
