"""A command whose reader has had enough ends quietly, as of the signal that other programs get."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from finished_runs import Runs
from forked import Forked
from tombola.cli.errors import errors

COMMAND = [sys.executable, "-c", "from tombola.cli import main\nmain()"]
GONE = 141
"""128 + SIGPIPE."""


@pytest.fixture(scope="module")
def runs(finished: Runs) -> Runs:
    return finished.restored()


def closed(*arguments: object) -> tuple[int, str]:
    """Exit code and stderr of a command whose standard output nobody reads."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    return process.wait(), errors


@pytest.fixture
def unread(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """As `closed`, in a fork: for commands that load torch."""
    return lambda *arguments: Forked(arguments, tmp_path / "stderr", unread=True).end(patience=60)


@pytest.mark.parametrize(
    "arguments", [("--version",), ("imp", "--help"), ("configs",), ("configs", "digits")], ids=" ".join
)
def test_whatever_prints(arguments: tuple[str, ...]) -> None:
    assert closed(*arguments) == (GONE, "")


@pytest.mark.parametrize("arguments", [("list", "criteria"), ("list", "data", "--json")], ids=" ".join)
def test_whatever_is_listed(arguments: tuple[str, ...], unread: Callable[..., tuple[int, str]]) -> None:
    assert unread(*arguments) == (GONE, "")


def test_runs(runs: Runs, unread: Callable[..., tuple[int, str]]) -> None:
    assert closed("show", runs.folders["train"], "--json") == (GONE, "")
    assert unread("list", "--out", runs.out) == (GONE, "")
    assert unread("show", runs.folders["train"]) == (GONE, "")
    assert unread("show", runs.folders["train"], "--json") == (GONE, "")


def test_a_command_that_fails_says_so_all_the_same(tmp_path: Path, unread: Callable[..., tuple[int, str]]) -> None:
    for command in (closed, unread):
        code, errors = command("show", tmp_path)
        assert (code, errors.startswith("error: ")) == (2, True)


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_without_standard_streams(closed: str, tmp_path: Path) -> None:
    """What is opened next must not take their place: a pipe that the command then waits for."""
    command = f"exec '{sys.executable}' -m tombola list --out '{tmp_path}' {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="writes to /dev/full")
@pytest.mark.parametrize("arguments", [("configs",), ("-h",), ("imp", "--help")], ids=" ".join)
def test_a_full_output(arguments: tuple[str, ...]) -> None:
    """A command that runs nothing has no finished work to speak of."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: No space left on device")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("runs", [False, True])
def test_an_error_of_the_system(runs: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), errors(debug=False, runs=runs):
        raise OSError(errno.EIO, "the disk failed")
    assert ("nothing finished was lost" in capsys.readouterr().err) == runs
