"""Ctrl-C and SIGTERM: acknowledged at once, and over within seconds whatever the command is doing.

`guard`, a process of its own, says so, even while the main thread is inside a long native call, and passes the signal
on to a thread here. The main thread is interrupted where Python runs next. If the process has not ended after GRACE
seconds (a long native call, an exception that was lost), or as soon as a second signal comes, the thread ends it as if
it were killed, which every run survives to the bit; where no thread can run, the guard does so a little later, with
SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from tombola.cli import guard
from tombola.cli.guard import SIGNALS
from tombola.runs import stopping

GRACE = 2.0
"""Seconds between a signal and the end of a process that does not end by itself."""
AGAIN = 0.05
NUDGE = signal.SIGURG
"""Interrupts the main thread again, where it missed a signal. No person sends it, and by default it does nothing."""
ANSWER = 1.0
"""Seconds that the way out waits for the guard's word, so that lines come in their order."""
STOPPING = stopping.SAID
STOPPED = "stopped"
CONTINUES, BEGINS_ANEW = "finished work is kept, the same command continues", "the same command begins anew"
LAST_LINE = b"\r\x1b[2K\x1b[?25h"
"""Clears the line in which bars were drawn, and shows the cursor again."""


@contextlib.contextmanager
def attended() -> Iterator[None]:
    """Takes signals within the block. A second one ends the process at once. After the block of a process that was
    stopped they are ignored, so that they disturb not the way out of Python itself; without one a signal ends the
    process at once from then on: all its work is done."""
    # Held back until they are taken: while Python forks, the exception of a signal would be lost.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    process, taken, passed_on = guard.begin(STOPPING)
    ignored = {number for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN}  # as in `command &`
    for number in set(SIGNALS) - ignored:
        signal.signal(number, stopping.interrupt)
    signal.signal(NUDGE, _nudged)
    signal.set_wakeup_fd(taken, warn_on_full_buffer=False)
    _taken_by.append(taken)
    threading.Thread(target=_attend, args=(passed_on,), daemon=True).start()
    _attended.set()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield
    finally:
        stopped = stopping.requested() is not None
        for number in set(SIGNALS) - ignored:
            signal.signal(number, signal.SIG_IGN if stopped else signal.SIG_DFL)
        if not stopped:
            signal.set_wakeup_fd(-1)
            _taken_by.clear()
            os.close(taken)
            with contextlib.suppress(ChildProcessError):  # where whoever started us ignores the end of children
                os.waitpid(process, 0)


def exit_code(number: int) -> int:
    """130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number


def _nudged(number: int, frame: FrameType | None) -> None:
    """Whoever else sends this signal asks for nothing."""
    if (asked := stopping.requested()) is not None:
        stopping.interrupt(asked, frame)


_taken_by: list[int] = []
"""The descriptor that the handlers of this process write to, while it attends to signals."""


def _let_go() -> None:
    """What a fork of ours does first: a signal to it is none to the command, and the guard waits for nobody else."""
    for taken in _taken_by:
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            if signal.getsignal(number) is stopping.interrupt:
                signal.signal(number, signal.SIG_DFL)
        os.close(taken)
    _taken_by.clear()


os.register_at_fork(after_in_child=_let_go)

_attended = threading.Event()
_answered = threading.Event()
_last_word = threading.Lock()


def acknowledge() -> None:
    """Waits until the guard has said that a signal was taken; says so where there is no guard."""
    if not _answered.wait(ANSWER if _attended.is_set() else 0):
        say(STOPPING)
    _answered.set()


_afterwards: list[str] = []
"""What the command says of being called again; nothing before it is known which command it is."""


def after_a_stop(said: str) -> None:
    """What a stop of this command is followed by: CONTINUES or BEGINS_ANEW."""
    _afterwards[:] = [said]


def say_stopped() -> None:
    """Says that the command has stopped, once, whichever of its threads comes first."""
    if _last_word.acquire(blocking=False):
        say("; ".join([STOPPED, *_afterwards]))


def leave(code: int) -> NoReturn:
    """Ends a process that was stopped, whose workers are gone, without what Python does as it shuts down: on a busy
    machine that took longer than a user waits."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def say(line: str) -> None:
    """A line on standard error, where that has room."""
    guard.write(f"{line}\n".encode())


def _attend(passed_on: int) -> None:
    """The thread's life: waits for a signal that the guard has answered, and sees to it that the process ends."""
    if received := os.read(passed_on, 64):
        _answered.set()
        stopping.request(received[0])
        _see_to_the_end(received[0], passed_on, waits=len(received) == 1)
    os.close(passed_on)


def _see_to_the_end(number: int, passed_on: int, *, waits: bool) -> None:
    """Ends the process after GRACE seconds, or when a second signal comes; at once if it does not wait."""
    deadline = time.monotonic() + GRACE
    while waits and time.monotonic() < deadline:
        waits = not select.select([passed_on], [], [], AGAIN)[0]
        if waits and not stopping.raised():  # it was held back, or came where it would have been lost
            signal.pthread_kill(threading.main_thread().ident or 0, NUDGE)
    if os.isatty(2):  # where the bars were
        guard.write(LAST_LINE)
    say_stopped()
    os._exit(exit_code(number))
