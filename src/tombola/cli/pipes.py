"""What a command is connected to: whether it has standard streams, and whether somebody still reads its output."""

from __future__ import annotations

import os
import select
from collections.abc import Callable


def open_the_closed() -> None:
    """Connects each standard stream that is closed to nothing: the next file that is opened would take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one


def watched_output() -> Callable[[], bool]:
    """A function that says whether the reader of standard output has gone: `| head -1` has had enough after a line.

    It keeps a descriptor of its own: what finds the pipe broken puts another file in the place of standard output.
    """
    output = os.dup(1)

    def nobody_reads() -> bool:
        poll = select.poll()
        poll.register(output, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))

    return nobody_reads
