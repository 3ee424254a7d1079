"""A small process beside a command that answers its signals at once and ends it when nothing else has.

Neither can be left to threads of the command: none of them runs while native code holds Python's lock, and none is
left once Python shuts down. But the C part of a signal's handler writes to a pipe at any time, and this process reads
it. It is forked before anything large is imported, and it ends when the command does, however that ends.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import time
from collections.abc import Iterable

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LONGEST, AT_ONCE = 3.5, 0.3
"""Seconds between a signal, or a second one, and SIGKILL for a command that is still there."""
SAME = 0.2
"""Signals within as many seconds are one: `timeout` sends its own twice, to the command and to its group."""


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
    first = deadline = math.inf
    while True:
        left = None if deadline == math.inf else max(0.0, deadline - _now())
        if not select.select([received], [], [], left)[0]:
            if os.getppid() == command:  # and not another process that has got its number
                os.kill(command, signal.SIGKILL)
            return
        numbers = _read(received)
        if not numbers:
            return  # the command has ended
        stops, now = bytes(number for number in numbers if number in SIGNALS), _now()
        if not stops or first <= now < first + SAME:
            continue
        if first == math.inf:
            first, deadline = now, now + LONGEST
            write(said)
        else:
            deadline = min(deadline, now + AT_ONCE)
        os.write(passing, stops[:1])


def write(said: bytes) -> None:
    """Writes to standard error, past all buffers, where that has room: a pipe that nobody empties would hold the end
    of a command up for ever."""
    with contextlib.suppress(OSError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, said)


def _read(descriptor: int) -> bytes:
    return os.read(descriptor, 64)


def _now() -> float:
    return time.monotonic()
