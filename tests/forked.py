"""Commands and workers in processes of their own that are forked from one which has imported everything already.

A process that a person starts, and each worker of it, spends its first seconds in imports. A test that starts many of
them to end them at work, or to compare what they did, needs these once. Studies finish in no time, as those do that a
test runs in its own process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import no_time
from tombola.runs import executors

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *("tombola.cli.commands", "tombola.studies.lottery.study", "tombola.studies.hybrid.study", "forked"),
        *("torch._dynamo", "matplotlib.figure", "sklearn.ensemble", "sklearn.decomposition"),  # that these load late
        *("tombola.studies.stress.study", "transformers.models.gpt2.modeling_gpt2"),
    ]
)


class BeginWorker:
    """Begins a worker that is forked, with the stand-ins, in the environment of the process that it works for."""

    def __getstate__(self) -> dict[str, dict[str, str]]:
        return {"environment": dict(os.environ)}

    def __call__(self, channel: Any, stop: Any, _: int) -> None:
        os.environ.clear()
        os.environ.update(self.environment)
        no_time.begin_worker(channel, stop, os.getppid())  # whose child it is: what it was forked from


WORKER = "tombola-worker"
"""What a forked worker of a command is called in /proc/PID/comm."""


class Forked:
    """A `tombola` command in a process group of its own, its standard error in the file `errors`.

    Its workers are forks of it, unless they are to be `spawned` as a person's are. It calls `first` before all else.
    What it prints goes nowhere; or, `unread`, into a pipe that nobody reads.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        errors: Path,
        spawned: bool = False,
        first: Callable[[], object] | None = None,
        unread: bool = False,
    ) -> None:
        self.errors = errors
        errors.write_bytes(b"")
        asked = [str(argument) for argument in arguments]
        self.process = FORKS.Process(target=_be, args=(asked, errors, dict(os.environ), spawned, first, unread))
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

    def when(self, condition: Callable[[], bool], patience: float, pause: float = 0.01) -> bool:
        """Waits until `condition` holds; False when the command ended before."""
        deadline = time.monotonic() + patience
        while self.alive():
            if condition():
                return True
            assert time.monotonic() < deadline, "the command makes no progress"
            time.sleep(pause)
        return False

    def end(self, patience: float) -> tuple[int, str]:
        """Waits for the end; exit code (minus the signal, if one ended it) and stderr."""
        self.process.join(patience)
        code = self.process.exitcode
        assert code is not None, "the command hangs"
        return code, self.errors.read_text()


def _be(
    arguments: list[str],
    errors: Path,
    environment: dict[str, str],
    spawned: bool,
    first: Callable[[], object] | None,
    unread: bool,
) -> None:
    """What a fork does: it becomes the command, in the environment of the test and not of what it was forked from."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in ((1, os.devnull), (2, str(errors))):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    if unread:
        reading, writing = os.pipe()
        os.dup2(writing, 1)
        os.close(writing)
        os.close(reading)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    # The server of forks holds Ctrl-C back for ever where a study's workers were the first that it was started for.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = ["tombola", *arguments]
    no_time.stand_in(setattr)
    from tombola.cli import main

    if spawned:
        executors._begin_worker = no_time.begin_worker
    else:
        executors._CONTEXT, executors._begin_worker = multiprocessing.get_context("fork"), _begin_fork
    if first is not None:
        first()
    main()


def _begin_fork(*arguments: Any) -> None:
    """In a forked worker of a command."""
    Path("/proc/self/comm").write_text(WORKER)
    no_time.begin_worker(*arguments)
