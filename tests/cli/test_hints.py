"""Commands that say what was meant, and that need nothing that may have gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from finished_runs import Runs, invoke
from said import error_in
from tombola.models import architectures
from tombola.runs.shipped import config_path, shipped


@pytest.mark.parametrize("name", ["cnn.pt", "weights/cnn.safetensors"])
def test_a_file_of_weights_is_no_model(name: str) -> None:
    refused = invoke("prune", name, "--sparsity", 0.5, "--data", "digits")
    assert refused.exit_code == 2
    assert f"{name}: this is a file of weights: name the model and give it by --weights {name}" in error_in(
        refused.stderr
    )


@pytest.mark.parametrize(
    "command",
    [
        ("show",),
        ("report",),
        ("report", "runs/none"),
        ("prune", "--sparsity", 0.5),
        ("extract", "--density", 0.5, "--out", "ticket"),
        ("stability", "--round", 1),
    ],
)
def test_a_config_is_no_run_and_no_model(
    command: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(config_path("criteria").read_text())
    for asked, runs in (("digits", "imp digits"), ("my.yaml", "compare my.yaml")):
        said = error_in(invoke(*command, asked).stderr)
        assert said == f"error: {asked}: a config; run it with: tombola {runs}"


def test_what_only_looks_like_a_config_is_taken_for_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()  # perhaps a run
    Path("my.yaml").write_text("- no\n")
    for asked in ("digits", "my.yaml", "nowhere", "none.yaml"):
        assert "no manifest.json here" in error_in(invoke("show", asked).stderr)
    assert "File name too long" in error_in(invoke("show", "x" * 300).stderr)
    assert "lenet5" in set(shipped()) & set(architectures)
    assert "a config" not in error_in(invoke("prune", "lenet5").stderr)


def test_a_child_has_its_report_when_its_parent_is_gone(finished: Runs) -> None:
    runs = finished.restored()
    shutil.rmtree(runs.folders["train"])
    child = runs.folders["prune"]
    before = (child / "report.html").read_bytes()
    assert invoke("report", child).exit_code == 0
    assert (child / "report.html").read_bytes() == before


def test_the_folder_of_a_run_is_no_model_and_the_error_says_what_to_do(finished: Runs) -> None:
    runs = finished.restored()
    pruned = {
        kind: error_in(invoke("prune", runs.folders[kind], "--sparsity", 0.5).stderr) for kind in ("imp", "compare")
    }
    assert f"tombola extract {runs.folders['imp']} --density" in pruned["imp"]
    assert "a run of tombola compare is no model" in pruned["compare"]
    for name in ("spec.json", "finished.json"):
        (runs.folders["train"] / name).unlink()
    said = error_in(invoke("prune", runs.folders["train"], "--sparsity", 0.5).stderr)
    assert said.endswith("this run is not finished; the command that began it continues it")
    several = error_in(invoke("report", runs.folders["imp"], runs.folders["compare"]).stderr)
    assert several.endswith("a run of tombola compare; this is for runs of tombola imp")


def test_a_line_break_in_a_folders_name_makes_no_line_of_its_own(finished: Runs, tmp_path: Path) -> None:
    for kind in ("imp", "train"):
        folder = tmp_path / f"{kind}\nVerdict: winning"
        shutil.copytree(finished.kept(kind), folder)
        for command in ("show", "report"):
            said = invoke(command, folder)
            assert said.exit_code == 0, said.output
            assert f"{kind}\\nVerdict: winning" in said.stdout
            assert "\nVerdict: winning" not in said.stdout
