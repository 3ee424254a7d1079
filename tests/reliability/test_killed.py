"""A study that is killed, stopped or orphaned at any instant goes on to the end it would have had.

The command runs as a person runs it, in processes of its own; two runs are the same when weights, masks and rows
agree to the bit, the column of seconds left out.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forked import WORKER, Forked
from said import error_in
from tombola.models.tensors import content_sha256, load_tensors
from tombola.runs.atomic import TEMPORARY_SUFFIX
from tombola.runs.rows import read_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc"),
]

STUDY: dict[str, Any] = {
    "checkpoint_seconds": 0,  # a checkpoint at every evaluation
    "controls": ["reinit"],
    "training": {"length": "240it", "evaluate_every": "12it", "learning_rate": "1e-2"},
}
STOPPED = "stopping after this step, again to stop now\nstopped; finished work is kept, the same command continues\n"
PATIENCE = 120.0
"""Seconds after which a process is taken to hang; no test needs them unless it fails."""


class Command:
    """A `tombola imp` in a process group of its own."""

    def __init__(self, config: Path, folder: Path, workers: int, errors: Path, spawned: bool) -> None:
        self.folder = folder
        self.forked = Forked(["imp", config, "--out", folder, "--workers", workers], errors, spawned)

    def alive(self) -> bool:
        return self.forked.alive()

    def signal_group(self, number: int) -> None:
        self.forked.signal_group(number)

    def end(self) -> tuple[int, str]:
        """Waits for the end; exit code and stderr."""
        return self.forked.end(PATIENCE)

    def when(self, condition: Callable[[], bool], pause: float = 0.01) -> bool:
        """Waits until `condition` holds; False when the command ended before."""
        return self.forked.when(condition, PATIENCE, pause)


Start = Callable[..., Command]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(config, out, workers=1, spawned=False)`: the command; what is left of it is killed after the test."""
    started: list[Command] = []

    def begin(config: Path, out: Path, workers: int = 1, spawned: bool = False) -> Command:
        started.append(Command(config, out, workers, tmp_path / f"{len(started)}.stderr", spawned))
        return started[-1]

    yield begin
    for command in started:
        command.signal_group(signal.SIGKILL)
        command.end()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, write_config: Any) -> Path:
    return write_config(tmp_path_factory.mktemp("config"), **STUDY)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, config: Path, invoke: Any) -> Path:
    """The run folder of the study run at once, by one worker: this process."""
    out = tmp_path_factory.mktemp("uninterrupted")
    result = invoke("imp", config, "--out", out, "--workers", 1)
    assert result.exit_code == 0, result.stderr
    return run_in(out)


def run_in(out: Path) -> Path:
    (folder,) = out.iterdir()
    return folder


def rows_without_seconds(run: Path) -> list[str]:
    rows = [{k: v for k, v in row.items() if k not in ("seconds", "clock")} for row in read_rows(run / "rows.jsonl")]
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def tensors_of(run: Path) -> dict[str, str]:
    """The content of every tensor file of a run, checkpoints that should be gone included."""
    paths = sorted(run.rglob("*.safetensors"))
    return {path.relative_to(run).as_posix(): content_sha256(load_tensors(path)[0]) for path in paths}


def assert_same_end(run: Path, reference: Path) -> None:
    assert rows_without_seconds(run) == rows_without_seconds(reference)
    assert tensors_of(run) == tensors_of(reference)
    for name in ("winning_ticket_mask.npy", "winning_ticket_mask.json", "spec.json"):
        assert (run / "results" / name).read_bytes() == (reference / "results" / name).read_bytes(), name
    names = {path.relative_to(run) for path in run.rglob("*")}
    assert names == {path.relative_to(reference) for path in reference.rglob("*")}


def temporaries(out: Path) -> set[str]:
    return {path.name for path in out.rglob(f".*{TEMPORARY_SUFFIX}")}


def row_bytes(out: Path) -> int:
    return sum(path.stat().st_size for path in out.glob("*/rows.jsonl"))


def evaluations_saved(out: Path) -> list[tuple[str, int]]:
    """What changes whenever a training is saved."""
    found = []
    for path in out.rglob("*.safetensors"):
        with contextlib.suppress(FileNotFoundError):
            found.append((path.name, path.stat().st_mtime_ns))
    return sorted(found)


def children(parent: int) -> list[int]:
    """Living processes whose parent is `parent`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, its_parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(its_parent) == parent and state != "Z":
                found.append(int(stat.parent.name))
    return found


def workers_of(command: Command) -> list[int]:
    found = []
    for child in children(command.forked.pid):
        with contextlib.suppress(OSError):
            spawned = b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
            if spawned or Path(f"/proc/{child}/comm").read_text().strip() == WORKER:
                found.append(child)
    return found


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def at_work(command: Command) -> bool:
    """Waits until this command has saved a training of its own; False when it ended before."""
    before = evaluations_saved(command.folder)
    return command.when(lambda: evaluations_saved(command.folder) != before)


def kill_at_a_random_time(command: Command, chance: random.Random) -> bool:
    """Mostly while it starts."""
    time.sleep(chance.uniform(0.02, 0.3))
    return command.alive()


def kill_between_saves(command: Command, chance: random.Random) -> bool:
    working = at_work(command)
    time.sleep(chance.uniform(0.0, 0.2))
    return working and command.alive()


def kill_during_a_write(command: Command, chance: random.Random) -> bool:
    """While the temporary file of an atomic write is there."""
    return at_work(command) and command.when(lambda: bool(temporaries(command.folder)), pause=0)


def kill_as_rows_grow(command: Command, chance: random.Random) -> bool:
    before = row_bytes(command.folder)
    return command.when(lambda: row_bytes(command.folder) > before)


def test_a_run_killed_many_times_ends_as_if_never_killed(
    tmp_path: Path, config: Path, uninterrupted: Path, start: Start
) -> None:
    chance = random.Random(20190301)
    ways = [kill_during_a_write, kill_as_rows_grow, kill_between_saves]
    plan = [kill_at_a_random_time] * 4 + list(itertools.islice(itertools.cycle(ways), 6))
    left_in_the_middle = 0
    for number, way in enumerate(plan):
        command = start(config, tmp_path / "out", 2 if number in (3, 7) else 1)
        in_progress = way(command, chance)
        command.signal_group(signal.SIGKILL)
        code, _ = command.end()
        assert in_progress, f"the study ended before {way.__name__}: make it longer"
        assert code == -signal.SIGKILL
        left_in_the_middle += bool(temporaries(tmp_path))
        assert not list(tmp_path.rglob("report.html"))

    assert left_in_the_middle >= 1, "no kill landed inside a write"
    assert start(config, tmp_path / "out").end()[0] == 0
    assert not temporaries(tmp_path)
    assert_same_end(run_in(tmp_path / "out"), uninterrupted)


def test_ctrl_c_and_a_killed_parent(tmp_path: Path, config: Path, uninterrupted: Path, start: Start) -> None:
    out = tmp_path / "out"
    starting = start(config, out, 2, spawned=True)
    assert starting.when(lambda: len(workers_of(starting)) == 2)
    time.sleep(0.05)  # they are still loading torch
    starting.signal_group(signal.SIGINT)
    assert_stopped(starting)

    working = start(config, out, 2)
    assert at_work(working)
    working.signal_group(signal.SIGINT)
    assert_stopped(working)

    orphaned = start(config, out, 2, spawned=True)
    assert at_work(orphaned)
    workers = children(orphaned.forked.pid)
    assert len(workers_of(orphaned)) == 2
    orphaned.forked.kill()
    deadline = time.monotonic() + 10  # about 0.1 s on an idle machine
    while any(is_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [worker for worker in workers if is_alive(worker)] == []

    assert start(config, out).end()[0] == 0
    assert_same_end(run_in(out), uninterrupted)


def assert_stopped(command: Command) -> None:
    code, errors = command.end()
    assert code == 130, errors
    assert errors.endswith(STOPPED)
    assert "Traceback" not in errors


def test_a_killed_worker_is_one_line_and_the_run_continues(
    tmp_path: Path, write_config: Any, start: Start, invoke: Any
) -> None:
    config = write_config(tmp_path, **STUDY | {"controls": [], "pruning": {"target_density": 0.6}})
    command = start(config, tmp_path / "out", 2)
    assert at_work(command)
    os.kill(workers_of(command)[0], signal.SIGKILL)
    code, errors = command.end()
    assert code == 1
    assert error_in(errors).startswith("error: a worker process died")
    assert invoke("imp", config, "--out", tmp_path / "out", "--workers", 1).exit_code == 0


def test_a_finished_run_is_shown_and_more_replicates_extend_it(
    tmp_path: Path, config: Path, uninterrupted: Path, invoke: Any, snapshot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / uninterrupted.name
    shutil.copytree(uninterrupted, run)
    before = snapshot(run)

    with monkeypatch.context() as patch:
        patch.setattr("tombola.studies.lottery.replicate.fit", lambda *_, **__: pytest.fail("trained again"))
        shown = invoke("imp", config, "--out", tmp_path, "--workers", 1)
    assert shown.exit_code == 0
    assert "Report:" in shown.stdout
    assert snapshot(run) == before

    extended = invoke("imp", config, "--out", tmp_path, "--workers", 1, "--replicates", 3)
    assert extended.exit_code == 0, extended.stderr
    old = (uninterrupted / "rows.jsonl").read_bytes()
    new = (run / "rows.jsonl").read_bytes()
    assert new.startswith(old)
    assert {json.loads(line)["replicate"] for line in new[len(old) :].splitlines()} == {2}
    assert json.loads((run / "results" / "sparsity_vs_accuracy.json").read_text())["replicates"] == 3
    kept = {name: state for name, state in before.items() if name.startswith("checkpoints/replicate-0")}
    after = snapshot(run)
    assert {name: after[name] for name in kept} == kept


def stopped_at(step: str, invoke: Any, *command: object) -> None:
    """Runs the command until it is stopped at this last step."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"tombola.studies.lottery.study.{step}", stop)
        assert invoke(*command).exit_code == 130


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory, config: Path, uninterrupted: Path, invoke: Any) -> Path:
    """The run with a third replicate, stopped before its report was written."""
    run = tmp_path_factory.mktemp("extended") / uninterrupted.name
    shutil.copytree(uninterrupted, run)
    stopped_at("report_page", invoke, "imp", config, "--out", run.parent, "--workers", 1, "--replicates", 3)
    return run


@pytest.mark.parametrize("step", ["report_page", "write_results"])
def test_an_extension_killed_at_its_last_steps_takes_them_later(
    step: str, tmp_path: Path, config: Path, extended: Path, invoke: Any
) -> None:
    """Report and results of two replicates must not pass for those of three."""
    run = tmp_path / extended.name
    shutil.copytree(extended, run)
    extend = ("imp", config, "--out", tmp_path, "--workers", 1, "--replicates", 3)
    if step == "write_results":
        stopped_at(step, invoke, *extend)
    assert invoke(*extend).exit_code == 0
    assert "replicates: 3\n" in (run / "report.html").read_text()
    assert json.loads((run / "results" / "sparsity_vs_accuracy.json").read_text())["replicates"] == 3


def test_a_checkpoint_left_beside_its_finished_training_is_removed(
    tmp_path: Path, config: Path, uninterrupted: Path, invoke: Any
) -> None:
    """A kill after the training's rows are stored, before its checkpoint is deleted, leaves nothing for good."""
    run = tmp_path / uninterrupted.name
    shutil.copytree(uninterrupted, run)
    (run / "report.html").unlink()
    rows = (run / "rows.jsonl").read_text().splitlines(keepends=True)
    last = max(number for number, row in enumerate(rows) if '"kind":"evaluation"' in row and '"replicate":1' in row)
    (run / "rows.jsonl").write_text("".join(rows[:last]))
    leftover = run / "checkpoints" / "replicate-01" / "init" / "round-03" / "reinit.checkpoint.safetensors"
    leftover.write_bytes(b"what a kill left")
    assert invoke("imp", config, "--out", tmp_path, "--workers", 1).exit_code == 0
    assert not leftover.exists()
    assert_same_end(run, uninterrupted)
