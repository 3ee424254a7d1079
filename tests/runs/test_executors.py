"""Cells give the same events in one process and in many, and no failure is lost."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import executor_cells
import pytest

from tombola.errors import DataError, RunFailure, TombolaError
from tombola.runs.executors import run_cells


def _events(cell: Any, specs: list[Any], workers: int) -> list[Any]:
    events: list[Any] = []
    run_cells(cell, specs, workers, events.append)
    return events


def test_one_process_runs_the_cells_in_order_right_here() -> None:
    assert _events(executor_cells.squares, [2, 3], workers=1) == [(2, 2), (2, 4), (2, 8), (3, 3), (3, 9), (3, 27)]
    assert _events(executor_cells.threads, [0], workers=4)[0][0] == os.getpid()
    assert _events(executor_cells.squares, [], workers=4) == []


def test_two_processes_give_the_same_events() -> None:
    specs = [*range(12)]
    serial = _events(executor_cells.squares, specs, workers=1)
    spread = _events(executor_cells.squares, specs, workers=2)
    assert Counter(spread) == Counter(serial)
    for spec in specs:  # the events of one cell keep their order
        assert [event for event in spread if event[0] == spec] == [event for event in serial if event[0] == spec]


def test_workers_have_one_thread_and_the_parent_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    events = _events(executor_cells.threads, [0, 1], workers=2)
    assert {threads for _, threads in events} == {"1"}
    assert os.getpid() not in {process for process, _ in events}
    assert os.environ["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_cell_reaches_the_caller_and_stops_the_others(tmp_path: Path, workers: int) -> None:
    with pytest.raises(DataError, match="the cell found bad data"):
        _events(executor_cells.fails_or_runs_on, [None, tmp_path], workers)
    assert list(tmp_path.iterdir()) == []


def test_a_sibling_in_a_long_native_call_is_not_waited_for() -> None:
    with pytest.raises(RunFailure, match="the sibling failed"):
        _events(executor_cells.fails_or_computes, [False, True], workers=2)


def test_an_error_of_the_listener_stops_the_cells(tmp_path: Path) -> None:
    def disk_is_full(_: Any) -> None:
        raise TombolaError("full")

    with pytest.raises(TombolaError, match="full"):
        run_cells(executor_cells.fails_or_runs_on, [tmp_path, tmp_path], 2, disk_is_full)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_dies_is_a_failed_run() -> None:
    with pytest.raises(RunFailure, match="a worker process died") as caught:
        _events(executor_cells.dies, ["die", "live"], workers=2)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
