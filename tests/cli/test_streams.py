"""Results go to stdout, all else to stderr: a program that reads a command's output reads the result alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finished_runs import KINDS, Runs, invoke
from tombola.cli.listing import LISTINGS


@pytest.fixture(scope="module")
def runs(finished: Runs) -> Runs:
    return finished.restored()


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_run_prints_on_stdout_what_show_prints(kind: str, runs: Runs) -> None:
    """`show` has no progress. Whatever a run says on the way there is on stderr."""
    shown = invoke("show", runs.folders[kind])
    assert shown.exit_code == 0
    assert shown.stdout
    assert shown.stderr == ""
    assert runs.made[kind].stdout == shown.stdout


@pytest.mark.parametrize(("kind", "begins"), [("imp", "10 trainings, about "), ("compare", "2 parents and 4 children")])
def test_what_a_run_says_on_the_way_is_on_stderr(kind: str, begins: str, runs: Runs) -> None:
    lines = runs.made[kind].stderr.splitlines()
    assert lines[0].startswith(begins)
    assert any(line.endswith("to run") for line in lines)


def test_a_plan_is_a_result(runs: Runs, tmp_path: Path) -> None:
    planned = invoke("imp", runs.root / "imp.yaml", "--dry-run", "--out", tmp_path)
    assert planned.exit_code == 0
    assert planned.stderr.startswith("reading data and timing")
    assert "Density" in planned.stdout
    assert "reading" not in planned.stdout


def test_stability(runs: Runs) -> None:
    measured = invoke("stability", runs.restore("imp"), "--round", 1, "--workers", 1)
    assert measured.exit_code == 0, measured.output
    assert measured.stdout.count("Report:") == 1
    assert not any(line.split(":")[0].endswith("to run") for line in measured.stdout.splitlines())


def test_a_folder_without_runs_has_no_result(tmp_path: Path) -> None:
    listed = invoke("list", "--out", tmp_path)
    assert (listed.exit_code, listed.stdout) == (0, "")
    assert "no runs in" in listed.stderr


@pytest.mark.usefixtures("quick_workers")
@pytest.mark.parametrize("workers", [1, 2])
def test_what_own_code_prints_is_no_result(workers: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    changes = ["model={factory: own_models:talkative}", "controls=[]", "replicates=2"]
    changes += ["pruning={rate: null, schedule: geometric, rounds: 1, target_density: 0.5}"]
    changes += ["training.length=4it", "training.evaluate_every=2it"]
    config = tmp_path / "own.yaml"
    config.write_text("data: {name: digits}\nname: own\n")
    sets = [part for change in changes for part in ("--set", change)]
    made = invoke("imp", config, *sets, "--workers", workers, "--out", tmp_path / "runs", "--json")
    assert made.exit_code == 0, made.output
    assert "a word" in made.stderr
    assert json.loads(made.stdout)
    assert "a word" not in capfd.readouterr().out


def test_the_help_of_list_names_all_there_is_to_choose_from() -> None:
    said = invoke("list", "--help").stdout
    assert not [name for name in LISTINGS if name not in said]


def test_a_finished_run_without_its_table_names_it(runs: Runs) -> None:
    folder = runs.restore("imp")
    (folder / "rows.jsonl").unlink()
    shown = invoke("show", folder)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert "rows.jsonl: is gone since the run was finished" in " ".join(shown.stderr.split())
