"""Regular expressions of strangers, searched for with patience that ends: some patterns take years on a short text."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tombola.errors import DataError
from tombola.runs import limits

SECONDS = limits.PATTERN_SECONDS


def search_all(pattern: str, texts: Sequence[str], where: str) -> list[re.Match[str] | None]:
    """What `pattern` finds in each text; DataError, beginning with `where`, when that takes more than `SECONDS`."""
    with _alarm(f"{where}: data.group_by {pattern!r} takes too long to find; write it without nested repetitions"):
        return [re.search(pattern, text) for text in texts]


@contextmanager
def _alarm(message: str) -> Iterator[None]:
    """Raises DataError in the block after `SECONDS`. Only a main thread, and only where there are such signals, can."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise DataError(message)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
