"""Ctrl-C and SIGTERM: acknowledged at once, and over within seconds whatever the command is doing.

Signals arrive through a pipe at a thread of its own, which says so even while the main thread is inside a long native
call. The main thread is interrupted where Python runs next. If the process has not ended after GRACE seconds (a long
native call, an exception that was lost), it ends as if it were killed, which every run survives to the bit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

from tombola.runs import stopping

GRACE = 2.0
"""Seconds between a signal and the end of a process that does not end by itself."""
AGAIN = 0.05
STOPPING = "stopping: finishing the current step; run the same command again to continue"
STOPPED = "stopped; finished work is kept, the same command continues"
SHOW_CURSOR = b"\x1b[?25h"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def attended() -> Iterator[None]:
    """Takes signals within the block. After one they stay taken, so that a second one disturbs no way out."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = {number: signal.signal(number, stopping.interrupt) for number in SIGNALS}
    listening = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_attend, args=(reader,), daemon=True).start()
    try:
        yield
    finally:
        if stopping.requested() is None:
            signal.set_wakeup_fd(listening)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(writer)


def exit_code(number: int) -> int:
    """130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number


_lock = threading.Lock()
_acknowledged = False


def acknowledge() -> None:
    """Says once that a signal was taken: the thread does, or the way out where that is quicker."""
    global _acknowledged
    with _lock:
        if not _acknowledged:
            say(STOPPING)
        _acknowledged = True


def say(line: str) -> None:
    """A line on standard error, past all buffers."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


def _attend(reader: int) -> None:
    """The thread's life: waits for a signal, says so, and sees to it that the process ends."""
    while received := os.read(reader, 64):
        stops = [number for number in received if number in SIGNALS]
        if stops:
            stopping.request(stops[0])
            acknowledge()
            _see_to_the_end(stops[0])
    os.close(reader)


def _see_to_the_end(number: int) -> None:
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline:
        time.sleep(AGAIN)
        if not stopping.raised():  # it was held back, or came where it would have been lost
            signal.pthread_kill(threading.main_thread().ident or 0, number)
    if "multiprocessing" in sys.modules:
        from multiprocessing import active_children

        for child in active_children():
            child.kill()
    if os.isatty(1):
        os.write(1, SHOW_CURSOR)
    say(STOPPED)
    os._exit(exit_code(number))
