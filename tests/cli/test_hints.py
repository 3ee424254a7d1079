"""Commands that say what was meant, and that need nothing that may have gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from finished_runs import Runs, invoke
from said import error_in


@pytest.mark.parametrize("name", ["cnn.pt", "weights/cnn.safetensors"])
def test_a_file_of_weights_is_no_model(name: str) -> None:
    refused = invoke("prune", name, "--sparsity", 0.5, "--data", "digits")
    assert refused.exit_code == 2
    assert f"{name}: this is a file of weights: name the model and give it by --weights {name}" in error_in(
        refused.stderr
    )


def test_a_child_has_its_report_when_its_parent_is_gone(tmp_path: Path) -> None:
    runs = Runs(tmp_path, kinds=("train", "prune"))
    shutil.rmtree(runs.folders["train"])
    child = runs.folders["prune"]
    before = (child / "report.html").read_bytes()
    assert invoke("report", child).exit_code == 0
    assert (child / "report.html").read_bytes() == before
