"""Whether somebody still reads what a command prints: `tombola list | head -1` has had enough after a line."""

from __future__ import annotations

import os
import select
from collections.abc import Callable


def watched_output() -> Callable[[], bool]:
    """A function that says whether the reader of standard output has gone.

    It keeps a descriptor of its own: what finds the pipe broken puts another file in the place of standard output.
    """
    try:
        output = os.dup(1)
    except OSError:  # there is none
        return lambda: False

    def nobody_reads() -> bool:
        poll = select.poll()
        poll.register(output, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))

    return nobody_reads
