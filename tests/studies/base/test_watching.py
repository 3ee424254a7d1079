"""What a person is told of a study at work."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from small_models import SMALL_PARENT, invoke
from small_study import SMALL_STUDY
from tombola.studies.base import watching as module
from tombola.studies.base.watching import Progress, remaining, watching

TWO = {"pruning": {"densities": [0.5, 0.25]}, "controls": []}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def lines(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_time_left_counts_what_was_done_now() -> None:
    assert remaining(30.0, 3, 5) == 50.0


def test_lines_come_now_and_then(clock: list[float]) -> None:
    console = Console(file=io.StringIO(), width=200)
    with watching(console) as watcher:
        watcher.planned(lambda: "8 trainings, about 80 s")
        watcher.begin("trainings", 8, 2)
        for second in (4.0, 8.0, 12.0):
            clock[0] = second
            watcher.unit("replicate [0], dense")
        clock[0] = 30.0
        watcher.progress(Progress("replicate 1", 5, 20, "round 2"))
        watcher.progress(Progress("replicate 1", 10, 20, "round 2"))
    assert lines(console) == [
        "8 trainings, about 80 s",
        "8 trainings to run, 2 of them finished earlier",
        "5 of 8 trainings, about 12 s left; replicate [0], dense",
        "replicate 1: 5 of 20, round 2",
    ]


def test_a_terminal_has_a_bar_for_all_units_and_one_for_each_task() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with watching(console) as watcher:
        watcher.begin("trainings", 8, 2)
        watcher.unit("replicate 0, dense")
        watcher.progress(Progress("replicate 1", 20, 20, "round 1"))
        watcher.progress(Progress("replicate 1", 5, 30, "round 2"))
        bars = {task.description: (task.completed, task.total) for task in watcher.bars.tasks}  # type: ignore[attr-defined]
        assert bars == {"all trainings": (3, 8), "replicate 1, round 2": (5, 30)}
        watcher.begin("forests", 4, 0)
        assert [task.description for task in watcher.bars.tasks] == ["all forests"]  # type: ignore[attr-defined]


def test_results_go_to_stdout_and_everything_else_to_stderr(tmp_path: Path) -> None:
    """What reads the output of a command reads its result, whether it was computed now or earlier."""
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump({**SMALL_PARENT, "model": {"factory": "own_models:dense"}}))
    asked = ("train", config, "--out", tmp_path / "runs")
    first, again = invoke(*asked), invoke(*asked)
    assert first.exit_code == again.exit_code == 0
    assert first.stdout == again.stdout
    assert "own_models:dense makes the network" in first.stderr
    assert not again.stderr


def test_a_plan_is_the_result_of_a_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tombola.studies.base.timing.training_seconds", lambda *_: 60.0)
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump({**SMALL_STUDY, "model": {"factory": "own_models:dense"}, **TWO}))
    planned = invoke("imp", config, "--out", tmp_path / "runs", "--dry-run", "--workers", 1)
    assert planned.exit_code == 0, planned.output
    assert "trainings" in planned.stdout
    assert "timing a few iterations" not in planned.stdout
    assert "timing a few iterations" in planned.stderr
    assert "own_models:dense makes the network" in planned.stderr
