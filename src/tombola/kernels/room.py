"""Work that needs more stack than the thread it is asked for on may have: a compiler wants megabytes, not 32 KiB."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")

ROOM = 16 << 20
"""Bytes of stack."""
_one_at_a_time = threading.Lock()
"""Of those that set the size of the next thread's stack: it is the whole process's."""


def with_room(work: Callable[[], Result]) -> Result:
    """What `work` gives or raises, done on a thread with `ROOM` bytes of stack, which takes about 0.1 ms to start."""
    done: Future[Result] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # whatever it is, it belongs to the caller
            done.set_exception(error)

    thread = threading.Thread(target=run, name="tombola-room", daemon=True)
    with _one_at_a_time:
        before = threading.stack_size(ROOM)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    return done.result()
