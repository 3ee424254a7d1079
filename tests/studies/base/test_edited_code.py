"""Somebody's own functions: a run that is not finished goes on with the code that it was begun with, and no other."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

import own_models
import own_tasks
from small_models import SMALL_PARENT, invoke, one_line
from small_study import SMALL_STUDY
from tombola.errors import RunFolderError
from tombola.models import ModelConfig
from tombola.runs.atomic import make_folder
from tombola.runs.configs import validate
from tombola.runs.folder import RunFolder
from tombola.runs.sealed import write_sealed
from tombola.studies.base.own_code import LIBRARIES, Unedited, code_facts, network_facts
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.study import Lottery
from tombola.training.code import code_sha256

THEIRS = """
import torch
from torch import nn
from torch.nn import functional
from their_layers import Scaled

def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10), Scaled())

def optimizer(parameters, rate):
    return torch.optim.SGD(parameters, lr=rate, momentum=0.5)

def schedule(iteration, total):
    return 1 - iteration / total

def loss(logits, targets):
    return functional.cross_entropy(logits, targets, label_smoothing=0.1)
"""
LAYERS = """
from torch import nn

class Scaled(nn.Module):
    def forward(self, inputs):
        return inputs * 1.0
"""
NAMES = {role: f"theirs:{role}" for role in ("optimizer", "schedule", "loss")}
OWN: dict[str, Any] = {**SMALL_PARENT, "model": {"factory": "theirs:network"}}
ALL = {**OWN, "training": SMALL_PARENT["training"] | NAMES}
SEARCH = {**SMALL_STUDY, "model": OWN["model"], "training": SMALL_STUDY["training"] | NAMES, "controls": []}
SEARCH["pruning"] = {"densities": [0.5]}
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "train": ("train", ALL, "tombola.studies.single.train.fit"),
    "imp": ("imp", SEARCH | {"replicates": 1}, "tombola.studies.lottery.replicate.fit"),
}


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Somebody's modules, and a function that edits them as between two commands."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # an edit within a second of the last is one, too

    def write(module: str, content: str) -> None:
        (tmp_path / f"{module}.py").write_text(content)
        for name in ("theirs", "their_layers"):
            monkeypatch.delitem(sys.modules, name, raising=False)

    write("theirs", THEIRS)
    write("their_layers", LAYERS)
    return write


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def begun(case: str, folder: Path) -> tuple[Path | str, ...]:
    """A command whose run was begun and stopped."""
    command, content, stopped_in = CASES[case]
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    asked = (command, path, "--out", folder / "runs", *(("--workers", "1") if command == "imp" else ()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopped_in, stop)
        assert invoke(*asked).exit_code == 130
    return asked


@pytest.mark.parametrize("case", CASES)
def test_an_edit_is_refused_by_name_until_it_is_undone(case: str, tmp_path: Path, theirs: Any) -> None:
    asked = begun(case, tmp_path)
    theirs("theirs", THEIRS.replace("0.1", "0.2"))
    said = ("theirs:network, theirs:optimizer, theirs:schedule, theirs:loss; undo the edit", "a new name")
    one_line(invoke(*asked), "begun with other code of", *said)
    theirs("theirs", THEIRS)
    assert invoke(*asked).exit_code == 0
    theirs("theirs", "raise RuntimeError('called')")
    assert invoke(*asked).exit_code == 0  # it is finished, and shown without any of it


def test_layers_in_another_module_are_the_networks_code_too(tmp_path: Path, theirs: Any) -> None:
    asked = begun("train", tmp_path)
    theirs("their_layers", LAYERS.replace("1.0", "0.5"))
    one_line(invoke(*asked), "begun with other code of the network of theirs:network; undo the edit")


def test_a_worker_that_imports_edited_code_does_not_work(tmp_path: Path, theirs: Any) -> None:
    """One that begins an hour after the command."""
    folder, worked = RunFolder(tmp_path / "run"), []
    make_folder(folder.root)
    write_sealed(folder.manifest, {"layout": 3, "must_match": code_facts(["theirs:loss"])})
    cell = Unedited(lambda spec, emit: worked.append(spec), folder.root, ("theirs:loss",))
    cell(1, print)
    theirs("theirs", THEIRS + "\n")
    with pytest.raises(RunFolderError, match="other code of theirs:loss;"):
        cell(2, print)
    assert worked == [1]


NOTEBOOK = """
FACTOR = 2.0

class Base:
    scale = 3

    def forward(self, inputs):
        return self.helped(inputs) * FACTOR

class Net(Base):
    @staticmethod
    def helped(inputs, names=("a", "b")):
        return [name for name in names if name in {"a", "c"}]

def make(width=4):
    return Net()
"""


def in_a_notebook(content: str) -> str:
    """The digest of `make` of a session that has no file."""
    module = types.ModuleType("__main__")
    exec(content, module.__dict__)
    return code_sha256(module.__dict__["make"], "__main__")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("FACTOR = 2.0", "FACTOR = 2.5"),
        ("scale = 3", "scale = 4"),
        ("helped(inputs) *", "helped(inputs) +"),
        ('in {"a", "c"}', 'in {"a", "b"}'),
        ('names=("a", "b")', 'names=("a",)'),
        ("width=4", "width=5"),
        ("class Net(Base)", "class Net"),
    ],
)
def test_of_a_session_without_a_file_all_that_a_function_reaches_counts(before: str, after: str) -> None:
    assert before in NOTEBOOK
    assert in_a_notebook(NOTEBOOK.replace(before, after)) != in_a_notebook(NOTEBOOK)


def test_of_a_session_without_a_file_nothing_else_counts() -> None:
    """Whoever asks for more replicates in the same script is not refused."""
    more = "replicates = 10\ndef other(): return 1\n" + NOTEBOOK.replace("return Net()", "return Net()  # mine")
    assert in_a_notebook(more) == in_a_notebook(NOTEBOOK)


class TestLibraries:
    @pytest.mark.parametrize(
        ("needed", "make", "package"),
        [("transformers", own_tasks.gpt2, "transformers"), ("torch_geometric", own_tasks.gine, "torch-geometric")],
    )
    def test_those_whose_layers_a_network_has_are_recorded(self, needed: str, make: Any, package: str) -> None:
        pytest.importorskip(needed)
        found = network_facts(ModelConfig(factory="own_tasks:any"), make())[LIBRARIES]
        assert found[package] == version(package)

    def test_a_network_of_torch_and_of_ones_own_has_none_whatever_is_imported(self) -> None:
        assert LIBRARIES not in network_facts(ModelConfig(factory="own_models:Tiring"), own_models.Tiring())

    def test_a_control_that_needs_one_records_it(self, tmp_path: Path) -> None:
        study = {**SMALL_STUDY, "replicates": 1, "controls": ["transplant"]}
        config = validate(study, LotteryConfig, "x")
        facts = Lottery(config, Lottery.place(config, tmp_path)).facts()
        assert facts["control_libraries"] == {"scipy": version("scipy")}
        plain = validate({**study, "controls": ["random"]}, LotteryConfig, "x")
        assert "control_libraries" not in Lottery(plain, Lottery.place(plain, tmp_path)).facts()
