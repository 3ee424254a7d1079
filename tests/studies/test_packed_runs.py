"""`tombola pack`, `unpack` and `info`: of runs, their results, model folders; a seed-only ticket trains as before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from finished_runs import invoke, one_line
from small_study import SMALL_STUDY, run_lottery
from tombola.data import load_data
from tombola.models import load_model, read_spec
from tombola.models.tensors import content_sha256
from tombola.runs.configs import validate
from tombola.runs.rows import rows_of
from tombola.runs.seeds import derive_seed
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.networks import replicate_seed, restored_ticket, trained_network
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.rewind import Rewind
from tombola.training import fit


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    torch.set_num_threads(1)
    pruning = SMALL_STUDY["pruning"] | {"target_density": 0.3}
    study = {**SMALL_STUDY, "replicates": 1, "rewind": ["init", "step:15it"], "controls": [], "pruning": pruning}
    return run_lottery(validate(study, LotteryConfig, "packing"), tmp_path_factory.mktemp("runs"))


@pytest.fixture(autouse=True)
def _desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def done(*arguments: object) -> str:
    found = invoke(*arguments)
    assert found.exit_code == 0, found.output
    return found.stdout


def digest(folder: str) -> str:
    return content_sha256(load_model(folder)[0].state_dict())


def test_a_seed_only_ticket_trains_to_the_bit_same_network(result: Result) -> None:
    said = done("pack", result.folder.root, "--density", 0.27, "--values", "none", "-o", "seed.ticket")
    assert "bytes" in said
    shown = json.loads(done("info", "seed.ticket", "--json"))
    assert (shown["verdict"]["start_layers_stored"], shown["verdict"]["learned"]) == (0, None)
    done("unpack", "seed.ticket", "-o", "ticket")
    model, _, masks = load_model("ticket")
    assert masks is not None
    seed = replicate_seed(result.config, 0)
    fit(model, load_data(result.config.data, seed), result.config.training, masks, derive_seed(seed, "order", 2))
    (row,) = rows_of(result.rows, kind="training", rewind="init", round=2, branch="ticket")
    assert content_sha256(model.state_dict()) == row["weights_sha256"]


def test_a_run_has_what_it_learned_and_where_it_restarts(result: Result) -> None:
    folder = result.folder
    done("pack", folder.root, "-o", "a.ticket")
    done("unpack", "a.ticket", "-o", "learned")
    done("unpack", "a.ticket", "-o", "start", "--start")
    at = (folder, Rewind.parse("init"), 0, result.ticket_round)
    assert digest("learned") == content_sha256(trained_network(*at)[0].state_dict())
    assert digest("start") == content_sha256(restored_ticket(*at)[0].state_dict())
    _, history = read_spec("start")
    assert (history["restart"], history["run"]) == ("init", folder.root.name)
    del history["restart"]
    assert read_spec("learned")[1] == {**history, "values": "float32"}
    done("pack", folder.results, "-o", "results.ticket")
    done("unpack", "results.ticket", "-o", "of_results")
    assert digest("of_results") == digest("start")
    done("pack", "start", "-o", "again.ticket")
    done("pack", "learned", "-o", "learned.ticket")
    assert json.loads(done("info", "again.ticket", "--json"))["verdict"]["start_layers_stored"] == 0
    assert json.loads(done("info", "learned.ticket", "--json"))["verdict"]["learned"] == "float32"


def test_a_start_that_no_seed_gives_is_stored_when_asked_for(result: Result) -> None:
    root = result.folder.root
    at = (result.folder, Rewind.parse("step:15it"), 0, 2)
    bytes_of = {}
    for name, options in {"values": (), "both": ("--start",), "start": ("--values", "none")}.items():
        done("pack", root, "--density", 0.27, "--rewind", "step:15it", "-o", f"{name}.ticket", *options)
        bytes_of[name] = Path(f"{name}.ticket").stat().st_size
    assert bytes_of["both"] > 1.4 * bytes_of["values"]
    for name in ("both", "start"):
        done("unpack", f"{name}.ticket", "-o", name, "--start")
        assert digest(name) == content_sha256(restored_ticket(*at)[0].state_dict())
    assert "holds no start weights" in str(one_line(invoke("unpack", "values.ticket", "-o", "none", "--start")))


def test_what_means_nothing_is_one_line(result: Result) -> None:
    root = result.folder.root
    done("pack", root, "-o", "a.ticket", "--values", "int8")
    done("unpack", "a.ticket", "-o", "start", "--start")
    done("unpack", "a.ticket", "-o", "learned")
    refused = {
        ("pack", "start", "--values", "int8"): "which are stored exactly",
        ("pack", "start", "--density", 0.5): "only a run of tombola imp has several",
        ("pack", "learned", "--start"): "does not hold the weights that it restarted from",
        ("pack", "learned", "--values", "int4"): "float32, float16, int8",
        ("pack", root, "--density", 0.9): "no round near it",
        ("pack", root, "--replicate", 7): "replicate 7 has no trained ticket",
        ("pack", "nowhere"): "no model folder",
        ("pack", "digits"): "digits",
        ("unpack", "a.ticket", "-o", "start"): "not an empty folder",
        ("unpack", "start/spec.json", "-o", "x"): "JSON",
        ("info", "start"): "start",
        ("info", "gone.ticket"): "gone.ticket",
    }
    for arguments, said in refused.items():
        error = one_line(invoke(*arguments))
        assert error is not None, arguments
        assert said in error
    shown = done("info", "a.ticket")
    assert "Learned values: int8" in shown
    assert "fc1" in shown


def test_diff_takes_runs_folders_and_files(result: Result) -> None:
    root = result.folder.root
    done("pack", root, "-o", "a.ticket", "--values", "int8")
    done("unpack", "a.ticket", "-o", "child")
    same = json.loads(done("diff", "a.ticket", "child", "--data", "digits", "--json"))
    assert same["verdict"]["outputs"]["agreement"] == 1
    assert same["verdict"]["total"]["change"] == 0
    rounded = json.loads(done("diff", root, "child", "--data", "digits", "--json"))
    assert 0 < rounded["verdict"]["total"]["change"] < 0.02
    (row,) = rows_of(result.rows, kind="training", rewind="init", round=result.ticket_round, branch="ticket")
    assert rounded["verdict"]["outputs"]["accuracy_a"] == pytest.approx(row["test_accuracy"])  # in the run's own split
    assert "overlap by 100.0%" in done("diff", root, "child")
    assert "names data as they are read" in str(
        one_line(invoke("diff", root, "child", "--data", "{name: digits, normalise: true}"))
    )
    assert "made for inputs" in str(one_line(invoke("diff", root, "child", "--data", "mnist")))
