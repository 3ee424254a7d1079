"""What a person is told of a study at work."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tombola.studies.base import watching as module
from tombola.studies.base.watching import Progress, remaining, watching


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
