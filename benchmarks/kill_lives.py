"""One process of a command, begun in a folder of its own and watched until it and its workers are gone."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola.compression import measured

CALL = "import sys; sys.modules['keras'] = None; from tombola.cli import main; sys.exit(main())"
WITH_WORKERS = ("imp", "hybrid", "compare", "stability")


@dataclass(frozen=True)
class Command:
    """A command and the folder that it begins with; OUT in its arguments is the folder that it works in."""

    name: str
    arguments: tuple[str, ...]
    prepared: Path | None = None

    def folder(self, at: Path) -> Path:
        shutil.rmtree(at, ignore_errors=True)
        return at.mkdir() or at if self.prepared is None else Path(shutil.copytree(self.prepared, at))

    def line(self, out: Path, workers: int) -> list[str]:
        given = [argument.replace("OUT", str(out)) for argument in self.arguments]
        return [self.name, *given, *(["--workers", str(workers)] if self.name in WITH_WORKERS else [])]


@dataclass
class Life:
    """One process of a command, its own group, its stderr in a file."""

    pid: int
    errors: Path
    code: int | None = None

    @classmethod
    def begin(cls, command: Command, out: Path, fresh: bool) -> Life:
        errors = out.with_suffix(".stderr")
        errors.write_bytes(b"")
        if fresh:
            arguments = [sys.executable, "-c", CALL, *command.line(out, 2)]
            with errors.open("wb") as file:
                process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=file, start_new_session=True)
            process.returncode = 0  # this script waits for it
            return cls(process.pid, errors)
        pid = os.fork()
        if not pid:
            _be(command.line(out, 1), errors)
        return cls(pid, errors)

    def alive(self) -> bool:
        if self.code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is None

    def wait(self, seconds: float, condition: Callable[[], bool]) -> float | None:
        """Seconds until a condition holds; None where it does not in time."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if condition():
                return time.monotonic() - began
            time.sleep(0.005)
        return None

    def group_gone(self) -> bool:
        return not any(_group_of(stat) == self.pid for stat in Path("/proc").glob("[0-9]*/stat"))


def run_whole(line: list[str], errors: Path) -> None:
    """Runs a command to its end, in a fork."""
    pid = os.fork()
    if not pid:
        _be(line, errors)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit(f"{' '.join(line)}: {errors.read_text()}")


def _be(line: list[str], errors: Path) -> None:
    """What a fork does: it becomes the command, and ends as it does."""
    code: Any = 1
    try:
        os.setsid()
        for number, mode in ((1, os.devnull), (2, str(errors))):
            os.dup2(os.open(mode, os.O_WRONLY | os.O_CREAT, 0o600), number)
        sys.argv = ["tombola", *line]
        sys.modules["keras"] = None  # type: ignore[assignment]
        measured.SECONDS = 0.01
        from tombola.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _group_of(stat: Path) -> int | None:
    """The group of a living process."""
    try:
        state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return None
    return None if state == "Z" else int(group)
