"""A small process beside a command that answers its signals at once and ends it when nothing else has.

Neither can be left to threads of the command: none of them runs while native code holds Python's lock, and none is
left once Python shuts down. But the C part of a signal's handler writes to a pipe at any time, and this process reads
it. It is forked before anything large is imported, and it ends when the command does, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LONGEST = 3.5
"""Seconds between a signal and SIGKILL for a command that is still there."""


def begin(said: str) -> tuple[int, int, int]:
    """Starts the guard of this process, which says `said` on stderr at the first signal.

    Returns its process number, the descriptor that a signal's handler writes to, and the one that every signal is
    passed on to once it has been answered. Nothing else may hold the first: the guard ends when it is closed.
    """
    received, taken = os.pipe()
    passed_on, passing = os.pipe()
    command = os.getpid()
    guard = os.fork()
    if not guard:
        try:
            _keep_only({2, received, passing})
            _guard(command, received, passing, f"{said}\n".encode())
        finally:
            os._exit(0)
    os.close(received)
    os.close(passing)
    os.set_blocking(taken, False)
    return guard, taken, passed_on


def _keep_only(kept: Iterable[int]) -> None:
    """Ignores what is sent to the whole group, and lets go of all descriptors but these: a reader of the command's
    output must not wait for us."""
    for number in (*SIGNALS, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    lowest = 0
    for descriptor in sorted(kept):
        os.closerange(lowest, descriptor)
        lowest = descriptor + 1
    os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))


def _guard(command: int, received: int, passing: int, said: bytes) -> None:
    deadline: float | None = None
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([received], [], [], left)[0]:
            if os.getppid() == command:  # and not another process that has got its number
                os.kill(command, signal.SIGKILL)
            return
        numbers = os.read(received, 64)
        if not numbers:
            return  # the command has ended
        stops = bytes(number for number in numbers if number in SIGNALS)
        if stops and deadline is None:
            deadline = time.monotonic() + LONGEST
            with contextlib.suppress(OSError):
                os.write(2, said)
        os.write(passing, stops)
