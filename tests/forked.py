"""Commands in processes of their own that are forked from one which has imported everything already.

A process that a person starts spends its first seconds in imports. A test that starts many of them to end them at work
needs these once. Studies finish in no time, as those do that a test runs in its own process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import no_time

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["tombola.cli.commands", "tombola.studies.lottery.study", "tombola.studies.hybrid.study", "forked"]
)


class Forked:
    """A `tombola` command in a process group of its own, its standard error in the file `errors`."""

    def __init__(self, arguments: Sequence[object], errors: Path) -> None:
        self.errors = errors
        errors.write_bytes(b"")
        self.process = _FORKS.Process(
            target=_be, args=([str(argument) for argument in arguments], errors, dict(os.environ))
        )
        self.process.start()
        while self.alive() and os.getpgid(self.pid) != self.pid:  # the first of all waits for the imports
            time.sleep(0.005)

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def alive(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> None:
        """SIGKILL to the process alone."""
        self.process.kill()

    def signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def end(self, patience: float) -> tuple[int, str]:
        """Waits for the end; exit code (minus the signal, if one ended it) and stderr."""
        self.process.join(patience)
        code = self.process.exitcode
        assert code is not None, "the command hangs"
        return code, self.errors.read_text()


def _be(arguments: list[str], errors: Path, environment: dict[str, str]) -> None:
    """What a fork does: it becomes the command, in the environment of the test and not of what it was forked from."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in ((1, os.devnull), (2, str(errors))):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = ["tombola", *arguments]
    no_time.stand_in(setattr)
    from tombola.cli import main
    from tombola.runs import executors

    executors._begin_worker = no_time.begin_worker

    main()
