"""`tombola stress` killed at any moment and stopped by Ctrl-C goes on to the end that it would have had."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stress_nets import Evaluated, assert_same, shorten_here

from forked import Forked
from tombola.runs.atomic import TEMPORARY_SUFFIX

PATIENCE = 120.0
"""Seconds after which a process is taken to hang; no test needs them unless it fails."""
STOPPED = "stopping after this step, again to stop now\nstopped; finished work is kept, the same command continues\n"

Start = Callable[..., Forked]


@pytest.fixture
def start(evaluated: Evaluated, tmp_path: Path) -> Iterator[Start]:
    """`start(workers)`: the command in a process group of its own; what is left of it is killed after the test."""
    started: list[Forked] = []

    def begin(workers: int = 1) -> Forked:
        arguments = evaluated.arguments(tmp_path / "out", "--workers", workers)
        errors = tmp_path / f"{len(started)}.stderr"
        started.append(Forked(arguments, errors, first=shorten_here))
        return started[-1]

    yield begin
    for command in started:
        command.signal_group(signal.SIGKILL)
        command.end(PATIENCE)


def units(out: Path) -> int:
    """How many units are on disk."""
    return len(list(out.glob("checkpoints/*/unit-*.json")))


def is_writing(out: Path) -> bool:
    return any(path.name.endswith(TEMPORARY_SUFFIX) for path in out.glob("checkpoints/*/.*"))


def at_work(command: Forked, out: Path, more: int, within_a_write: bool = False) -> None:
    """Waits until the command has finished so many units of its own."""
    before = units(out)
    assert command.when(
        lambda: units(out) >= before + more and (is_writing(out) or not within_a_write), PATIENCE, pause=0
    ), command.errors.read_text()


@pytest.mark.slow
def test_killed_and_stopped_it_ends_as_if_left_alone(evaluated: Evaluated, start: Start, tmp_path: Path) -> None:
    """Between units and within their writes, with one worker and with two, at Ctrl-C, and while results are written."""
    out = tmp_path / "out"
    for workers, more, within_a_write in ((1, 1, False), (2, 3, True)):
        killed = start(workers)
        at_work(killed, out, more, within_a_write)
        killed.signal_group(signal.SIGKILL)
        assert killed.end(PATIENCE)[0] == -signal.SIGKILL
    stopped = start(2)
    at_work(stopped, out, 1)
    stopped.signal_group(signal.SIGINT)
    code, errors = stopped.end(PATIENCE)
    assert (code, errors.endswith(STOPPED), "Traceback" in errors) == (130, True, False), errors
    assert not (out / "finished.json").exists()

    written = start()
    written.when(lambda: (out / "report.html").exists(), PATIENCE, pause=0)
    written.signal_group(signal.SIGKILL)
    written.end(PATIENCE)
    code, errors = start().end(PATIENCE)
    assert code == 0, errors
    assert_same(out, evaluated.folder)
    assert not [path for path in out.rglob(".*") if path.name.endswith(TEMPORARY_SUFFIX)]
