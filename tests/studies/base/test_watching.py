"""What a person is told of a study at work."""

from __future__ import annotations

import heapq
import io
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from small_models import SMALL_PARENT, invoke
from small_study import SMALL_STUDY
from tombola.studies.base import watching as module
from tombola.studies.base.watching import Pace, Progress, watching

TWO = {"pruning": {"densities": [0.5, 0.25]}, "controls": []}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def lines(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_time_left_is_said_after_three_units() -> None:
    pace = Pace(100.0)
    for number in (1, 2, 3):
        assert pace.left(5, 100.0 + 10 * number) is None
        pace.unit(100.0 + 10 * number)
    assert pace.left(5, 130.0) == pytest.approx(50)
    assert pace.left(5, 134.0) == pytest.approx(46), "it goes down while a unit runs"
    assert pace.left(5, 500.0) == pytest.approx(40), "but not below what the others take"
    assert pace.left(0, 134.0) == 0


def ends(cells: Sequence[Sequence[float]], workers: int) -> list[float]:
    """When units end whose seconds are those of `cells`, on as many workers that take one cell after the other."""
    free, found = [0.0] * workers, []
    for cell in cells:
        now = heapq.heappop(free)
        for seconds in cell:
            now += seconds
            found.append(now)
        heapq.heappush(free, now)
    return sorted(found)


@given(
    dense=st.floats(0.1, 600),
    sparse=st.floats(0.2, 1.0),
    jitter=st.lists(st.floats(0.7, 1.4), min_size=7, max_size=7),
    first=st.floats(0.1, 2.0),
    replicates=st.integers(1, 12),
    rounds=st.integers(3, 20),
    workers=st.sampled_from([1, 2, 4, 8]),
)
def test_time_left_never_begins_at_hours_for_minutes(
    dense: float, sparse: float, jitter: list[float], first: float, replicates: int, rounds: int, workers: int
) -> None:
    """A study as they are: dense networks first, rounds that take less and less, an early unit that is odd."""
    workers = min(workers, replicates)
    shrink = [1 - (1 - sparse) * index / (rounds - 1) for index in range(rounds)]
    cells = [
        [dense * part * jitter[(index + replicate) % 7] for index, part in enumerate(shrink)]
        for replicate in range(replicates)
    ]
    cells[0][0] *= first
    moments = ends(cells, workers)
    pace, longest = Pace(0.0, workers), max(map(max, cells))
    for number, now in enumerate(moments, start=1):
        pace.unit(now)
        left, true = pace.left(len(moments) - number, now), moments[-1] - now
        assert (left is None) == (number < 3)
        if left is not None:  # give or take what is running
            assert true / 6 - longest < left < 6 * true + longest


def test_starting_processes_are_no_work() -> None:
    """Workers import for seconds before the first unit, which may be short."""
    pace = Pace(0.0)
    pace.starts(60.0)
    for now in (61.0, 62.0, 63.0):
        pace.starts(now)
        pace.unit(now)
    assert pace.left(100, 63.0) == pytest.approx(100)


def test_what_was_there_at_the_first_look_took_no_time() -> None:
    """A training that goes on from iteration 500 did not do these now."""
    pace = Pace(0.0)
    pace.reached(500, 10.0)
    assert pace.left(100, 10.0) is None
    pace.reached(510, 20.0)
    assert pace.left(100, 20.0) == pytest.approx(100)


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
