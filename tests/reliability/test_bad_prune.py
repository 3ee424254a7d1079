"""What `tombola train`, `prune` and `compare` cannot use is one line and exit code 2; nothing that is there changes."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import own_models
from small_models import SMALL_PARENT, contents, invoke, make_child, make_parent, one_line
from tombola.models.tensors import SIZE_LIMIT

GRID = {**SMALL_PARENT, "criteria": ["magnitude"], "sparsities": [0.5], "replicates": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return make_parent(tmp_path_factory.mktemp("parents")).folder


@pytest.fixture
def parent(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "parent"))


def refused(parent: Path, *options: object, said: str = "", out: Path | None = None) -> None:
    """Prunes `parent` with `options`, and everything around it stays as it was."""
    out = parent.parent / "child" if out is None else out
    before = contents(parent.parent)
    wanted = ["--sparsity", 0.5, *options] if "--sparsity" not in options else list(options)
    one_line(invoke("prune", parent, *wanted, "--out", out), said)
    assert contents(parent.parent) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--criterion", "magnitud"), "did you mean 'magnitude'"),
        (("--criterion", ""), "pruning.criterion"),
        (("--criterion", "magnitude:2"), "magnitude has no number to set"),
        (("--criterion", "movement:-1"), "a number above 0"),
        (("--structure", "neurons"), "did you mean 'neuron'"),
        (("--structure", "4:2"), "keeps fewer than m"),
        (("--structure", "block:0x4"), "pruning.structure"),
        (("--distribution", "globl"), "did you mean 'global'"),
        (("--distribution", "global:2"), "only `rates` takes numbers"),
        (("--distribution", "rates:x"), "needs rates"),
        (("--schedule", "cubic:0"), "a schedule is oneshot, iterative:N, linear:N or cubic:N"),
        (("--schedule", "slowly"), "a schedule is oneshot"),
        (("--sparsity", 1), "pruning.sparsity"),
        (("--sparsity", 0), "pruning.sparsity"),
        (("--sparsity", -1), "pruning.sparsity"),
        (("--sparsity", "nan"), "pruning.sparsity"),
        (("--sparsity", "inf"), "pruning.sparsity"),
        (("--protect", "nothing"), "protect: no layer is called 'nothing'"),
        (("--protect", "fc1", "--protect", "fc?", "--protect", "out*"), "protected"),
        (("--protect", ""), "protect: no layer"),
        (("--min-keep", 1000), "min_keep=1000"),
        (("--finetune", "soon"), "fine_tuning.length"),
        (("--finetune", "-1it"), "fine_tuning.length"),
        (("--finetune", "0it", "--schedule", "cubic"), "give it a length"),
        (("--lr", "nan"), "fine_tuning.learning_rate"),
        (("--lr", 0), "fine_tuning.learning_rate"),
        (("--optimizer", "adm"), "fine_tuning.optimizer"),
        (("--structure", "filter"), "no layer of the model has units"),
        (("--structure", "block:3x3"), "does not divide into blocks"),
        (("--data", "digit"), "did you mean 'digits'"),
        (("--data", "{name: digits"), "--data"),
        (("--data", "[digits]"), "data"),
        (("--data", "3"), "data"),
        (("--data", "{nam: digits}"), "did you mean 'name'"),
        (("--data", "{name: digits, folder: x}"), "`folder` belongs to"),
        (("--data", "{name: npz, folder: /nowhere}"), "/nowhere"),
        (("--data", "2001-99-99"), "--data"),
    ],
)
def test_options(options: tuple[object, ...], said: str, parent: Path) -> None:
    refused(parent, *options, said=said)


def test_numbers_that_are_none(parent: Path) -> None:
    """Refused by the command line's own parser, in its words."""
    for options in (("--sparsity", "much"), ("--min-keep", 0), ("--seed", -1), ("--batch-size", 0)):
        result = invoke("prune", parent, *options)
        assert result.exit_code == 2
        assert options[0] in result.stderr
        assert "Traceback" not in result.output


class TestOut:
    def test_the_parent_itself_or_a_place_in_it(self, parent: Path) -> None:
        for out in (parent, parent / "child", parent / "deeper" / "child", parent / ".." / parent.name / "x"):
            refused(parent, out=out, said="is or lies in the parent's folder")
        link = parent.parent / "link"
        link.symlink_to(parent)
        refused(parent, out=link, said="is or lies in the parent's folder")

    def test_files_of_something_else(self, parent: Path, tmp_path: Path) -> None:
        (tmp_path / "theirs").mkdir()
        (tmp_path / "theirs" / "thesis.tex").write_text("years of work")
        refused(parent, out=tmp_path / "theirs", said="holds files of something else")
        refused(parent, out=tmp_path / "theirs" / "thesis.tex", said="is a file")
        refused(parent, out=tmp_path / "theirs" / "thesis.tex" / "x", said="thesis.tex")

    def test_a_run_of_another_kind(self, parent: Path, tmp_path: Path) -> None:
        other = make_parent(tmp_path / "others", name="other").folder
        before = contents(other)
        refused(parent, out=other, said="holds a run of another kind")
        assert contents(other) == before

    def test_a_model_folder_that_is_no_run(self, parent: Path, tmp_path: Path) -> None:
        (tmp_path / "saved").mkdir()
        shutil.copy(parent / "spec.json", tmp_path / "saved")
        refused(parent, out=tmp_path / "saved", said="holds files of something else")

    def test_a_name_that_is_too_long(self, parent: Path) -> None:
        refused(parent, out=parent.parent / ("x" * 300), said="File name too long")


class TestTheParentsFiles:
    @pytest.mark.parametrize("name", ["weights.safetensors", "spec.json"])
    @pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"x" * len(b)])
    def test_damaged(self, name: str, damage: Any, parent: Path) -> None:
        (parent / name).write_bytes(damage((parent / name).read_bytes()))
        refused(parent, said=str(parent))

    @pytest.mark.parametrize("name", ["weights.safetensors", "spec.json"])
    def test_missing(self, name: str, parent: Path) -> None:
        (parent / name).unlink()
        refused(parent, said=name)

    def test_a_bit_that_fell_over(self, parent: Path) -> None:
        content = bytearray((parent / "weights.safetensors").read_bytes())
        content[-9] ^= 4
        (parent / "weights.safetensors").write_bytes(content)
        refused(parent, said="checksum")

    @pytest.mark.parametrize(
        "history",
        [
            {"data": {"config": {"name": "nothing"}, "split_seed": 0}},
            {"data": {"config": 3, "split_seed": 0}},
            {"data": {"split_seed": 0}},
            {"data": {"config": {"name": "npz", "folder": "/nowhere"}, "split_seed": 0}},
            {"data": 3},
            [],
        ],
    )
    def test_a_record_of_data_that_is_none(self, history: Any, parent: Path) -> None:
        spec = json.loads((parent / "spec.json").read_text())
        (parent / "spec.json").write_text(json.dumps(spec | {"history": history}))
        refused(parent)

    def test_a_finished_child_whose_rows_are_damaged(self, parent: Path, tmp_path: Path) -> None:
        command = ("prune", parent, "--sparsity", 0.5, "--finetune", "0it", "--out", tmp_path / "child")
        assert invoke(*command).exit_code == 0
        rows = (tmp_path / "child" / "rows.jsonl").read_bytes()
        (tmp_path / "child" / "rows.jsonl").write_bytes(b"{" + rows)
        one_line(invoke(*command), "rows.jsonl: line 1 is damaged")
        (tmp_path / "child" / "rows.jsonl").write_bytes(rows)
        (tmp_path / "child" / "manifest.json").write_text("{")
        one_line(invoke(*command), "manifest.json", "damaged")


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("it-ran",)


class TestWeightsFiles:
    @pytest.mark.parametrize("case", ["pickle", "code beside", "shapes", "truncated", "huge", "missing", "text"])
    def test_refused(self, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        path, state = tmp_path / "w.pt", own_models.dense().state_dict()
        said = "w.pt: damaged"
        if case == "pickle":
            path.write_bytes(pickle.dumps(Attack()))
        elif case == "code beside":
            torch.save({"state_dict": state, "callback": Attack()}, path)
        elif case == "shapes":
            torch.save({name: tensor[..., :2] for name, tensor in state.items()}, path)
            said = "1.weight is torch.float32 (16, 2), the model's is torch.float32 (16, 64)"
        elif case == "truncated":
            torch.save(state, path)
            path.write_bytes(path.read_bytes()[:-100])
        elif case == "huge":
            path.touch()
            os.truncate(path, SIZE_LIMIT + 1)
            said = "expected at most"
        elif case == "text":
            path.write_text("weights\n")
        else:
            said = "cannot read"
        command = ("prune", "own_models:dense", "--data", "digits", "--weights", path, "--sparsity", 0.5)
        result = invoke(*command, "--out", tmp_path / "child")
        one_line(result, str(path), said)
        assert not (tmp_path / "it-ran").exists()
        assert not (tmp_path / "child").exists()


class TestConfigs:
    @pytest.mark.parametrize(
        ("command", "override", "said"),
        [
            ("train", "trainin.length=3it", "did you mean 'training'"),
            ("train", "name=../up", "name"),
            ("train", "model.architecture=lenet", "lenet-300-100"),
            ("train", "evolution={method: rigl}", "evolution"),
            ("train", "evolution={method: steep, sparsity: 0.5}", "evolution"),
            ("train", "evolution={method: rigl, sparsity: 1}", "sparsity"),
            ("train", "evolution={method: rigl, sparsity: 0.9, distribution: rates}", "takes no sparsity"),
            ("train", "evolution={method: rigl, sparsity: 0.9, every: 99it}", "no update fits"),
            (
                "train",
                "evolution={method: rigl, sparsity: 0.9, every: 9it, protect: [fc9]}",
                "no layer is called 'fc9'",
            ),
            ("train", "data={name: digits, training: 5000}", "5000 training examples are asked for"),
            ("compare", "criteria=[]", "criteria"),
            ("compare", "criteria=[magnitud]", "did you mean 'magnitude'"),
            ("compare", "criteria=[magnitude, magnitude]", "name each criterion once"),
            ("compare", "structures=['2:4']", "fixes its own sparsity"),
            ("compare", "distributions=['rates:0.2']", "takes no sparsity"),
            ("compare", "sparsities=[1]", "sparsities.0"),
            ("compare", "sparsities=[0.5, .nan]", "sparsities.1"),
            ("compare", "replicates=0", "replicates"),
        ],
    )
    def test_a_value_that_cannot_be(self, command: str, override: str, said: str, tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(SMALL_PARENT if command == "train" else GRID))
        one_line(invoke(command, path, "--out", tmp_path / "runs", "--set", override), said)
        assert not list(tmp_path.rglob("rows.jsonl"))

    @pytest.mark.parametrize("command", ["train", "compare"])
    def test_a_config_of_another_study(self, command: str, tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({**(GRID if command == "train" else SMALL_PARENT), "study": "lottery"}))
        one_line(invoke(command, path, "--out", tmp_path / "runs"), str(path))


def test_a_way_that_was_refused_is_not_in_the_way_of_the_next(parent: Path, tmp_path: Path) -> None:
    out = tmp_path / "child"
    refused(parent, "--protect", "nothing", out=out)
    refused(parent, "--schedule", "cubic:99", out=out)
    assert make_child(parent, out, {"sparsity": 0.5}).stages[-1]["kept"] == 820
