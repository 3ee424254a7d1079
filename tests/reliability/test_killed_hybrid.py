"""A hybrid study that is killed or stopped at any instant goes on to the end it would have had.

Two runs are the same when their rows agree to the bit, the clock's columns left out, and so do their forests.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from forked import Forked
from small_hybrid import draw_images, hybrid_study
from tombola.runs.atomic import TEMPORARY_SUFFIX
from tombola.runs.rows import read_rows

pytestmark = pytest.mark.slow

CLOCK = ("seconds", "seconds_fit", "clock")
STOPPED = "stopping after this step, again to stop now\nstopped; finished work is kept, the same command continues\n"
PATIENCE = 120.0
"""Seconds after which a process is taken to hang; no test needs them unless it fails."""
Start = Callable[[Path, int], Forked]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two lotteries of one round, and forests that take longer than they do in the other tests."""
    folder = tmp_path_factory.mktemp("killed")
    content = hybrid_study(draw_images(folder / "images"), lenet=None, trees=60)
    for role in ("cnn", "head"):
        content[role] |= {"pruning": {"densities": [0.4]}, "controls": []}
    path = folder / "hybrid.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield os.environ["XDG_CACHE_HOME"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, config: Path, cache: str, invoke: Any) -> Path:
    """The folder of the runs of a study that ran at once, by one worker: this process."""
    out = tmp_path_factory.mktemp("uninterrupted")
    result = invoke("hybrid", config, "--out", out, "--workers", 1)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def start(config: Path, cache: str, tmp_path: Path) -> Iterator[Start]:
    """`start(out, workers)`: the command in a process group of its own; what is left of it is killed after the test."""
    started: list[Forked] = []

    def begin(out: Path, workers: int) -> Forked:
        arguments = ["hybrid", config, "--out", out, "--workers", workers]
        started.append(Forked(arguments, tmp_path / f"{len(started)}.stderr"))
        return started[-1]

    yield begin
    for command in started:
        command.signal_group(signal.SIGKILL)
        command.end(PATIENCE)


@pytest.fixture
def lotteries(uninterrupted: Path, tmp_path: Path) -> Path:
    """A folder in which the lotteries have run, and the study has not begun."""
    out = Path(shutil.copytree(uninterrupted, tmp_path / "out"))
    shutil.rmtree(hybrid_in(out))
    return out


def hybrid_in(out: Path) -> Path:
    (root,) = out.glob("hybrid-*")
    return root


def when(command: Forked, condition: Callable[[], bool]) -> bool:
    """Waits until `condition` holds; False when the command ended before."""
    deadline = time.monotonic() + PATIENCE
    while command.alive():
        if condition():
            return True
        assert time.monotonic() < deadline, "the command makes no progress"
        time.sleep(0.002)
    return False


def rows_without_clock(run: Path) -> list[str]:
    rows = [{k: v for k, v in row.items() if k not in CLOCK} for row in read_rows(run / "rows.jsonl")]
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def assert_same_end(out: Path, reference: Path) -> None:
    ours, theirs = hybrid_in(out), hybrid_in(reference)
    assert ours.name == theirs.name
    assert rows_without_clock(ours) == rows_without_clock(theirs)
    names = {path.relative_to(ours) for path in ours.rglob("*")}
    assert names == {path.relative_to(theirs) for path in theirs.rglob("*")}
    for name in (name for name in names if name.suffix == ".onnx"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def count_of(out: Path, pattern: str) -> Callable[[], int]:
    """How many files of the study are there."""
    return lambda: sum(1 for _ in out.glob(f"hybrid-*/{pattern}"))


def size_of_rows(out: Path) -> int:
    return sum(path.stat().st_size for path in out.glob("hybrid-*/rows.jsonl"))


def more_than_now(measure: Callable[[], int]) -> Callable[[], bool]:
    before = measure()
    return lambda: measure() > before


def measuring(out: Path) -> Callable[[], bool]:
    """Whether time is being measured: the last network of both replicates is done."""
    tickets = count_of(out, "checkpoints/*/ticket.json")
    return lambda: tickets() == 2


def test_killed_and_stopped_it_ends_as_if_neither(
    lotteries: Path, uninterrupted: Path, config: Path, start: Start, invoke: Any
) -> None:
    """Two workers between forests and while the table grows, then one while time is measured; to the end with one."""
    forests = count_of(lotteries, "checkpoints/*/*.onnx")

    def interrupt(workers: int, condition: Callable[[], bool], number: int) -> tuple[int, str]:
        command = start(lotteries, workers)
        assert when(command, condition), "the study ended before: make it longer"
        command.signal_group(number)
        ended = command.end(PATIENCE)
        assert not list(lotteries.glob("hybrid-*/results/hybrid.json"))
        return ended

    assert interrupt(2, more_than_now(forests), signal.SIGKILL)[0] == -signal.SIGKILL
    code, said = interrupt(2, more_than_now(lambda: size_of_rows(lotteries)), signal.SIGINT)
    assert code == 130
    assert said.endswith(STOPPED)
    assert interrupt(1, measuring(lotteries), signal.SIGKILL)[0] == -signal.SIGKILL
    assert invoke("hybrid", config, "--out", lotteries, "--workers", 1).exit_code == 0
    assert not list(lotteries.rglob(f".*{TEMPORARY_SUFFIX}"))
    assert_same_end(lotteries, uninterrupted)


def stopped_at(step: str, invoke: Any, *command: object) -> None:
    """Runs the command until it is stopped at this last step."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"tombola.studies.hybrid.study.{step}", stop)
        assert invoke(*command).exit_code == 130


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory, config: Path, uninterrupted: Path, invoke: Any) -> Path:
    """The runs with a third replicate, stopped before the study's report was written."""
    out = Path(shutil.copytree(uninterrupted, tmp_path_factory.mktemp("extended") / "out"))
    stopped_at("report_page", invoke, "hybrid", config, "--out", out, "--workers", 1, "--replicates", 3)
    return out


@pytest.mark.parametrize("step", ["report_page", "write_results"])
def test_an_extension_killed_at_its_last_steps_takes_them_later(
    step: str, extended: Path, config: Path, tmp_path: Path, invoke: Any
) -> None:
    """Report and results of two replicates must not pass for those of three."""
    out = Path(shutil.copytree(extended, tmp_path / "out"))
    extend = ("hybrid", config, "--out", out, "--workers", 1, "--replicates", 3)
    if step == "write_results":
        stopped_at(step, invoke, *extend)
    assert invoke(*extend).exit_code == 0
    assert json.loads((hybrid_in(out) / "results" / "hybrid.json").read_text())["replicates"] == 3
    assert "3 replicates" in (hybrid_in(out) / "report.html").read_text()
