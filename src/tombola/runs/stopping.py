"""Whether this process was asked to stop, and where it does.

Whoever takes signals (the command line, a worker's watcher) calls `interrupt` or `request`. Work in progress calls
`check` where it may end cheaply: before every iteration, event and write. So nothing is written any more once a stop
was asked for, even where the exception of a signal was lost or taken for another one.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

SAID = "stopping after this step, again to stop now"
"""What a person is told at once who asks a command to stop."""


class Stopped(KeyboardInterrupt):
    """Work ends here because a signal or a sibling asked for it; what is finished is on disk."""


_signal: int | None = None
_raised = False
_held = 0


def request(number: int) -> None:
    """Asks this process to stop, for signal `number`; the first one counts."""
    global _signal
    if _signal is None:
        _signal = number


def requested() -> int | None:
    """The signal that asked this process to stop, if any."""
    return _signal


def raised() -> bool:
    """Whether `Stopped` has been raised; afterwards everything is on its way out and is not disturbed again."""
    return _raised


def check() -> None:
    """Raises Stopped when a stop was asked for."""
    global _raised
    if _signal is not None:
        _raised = True
        raise Stopped


def interrupt(number: int, frame: FrameType | None) -> None:
    """A signal's handler: raises Stopped at the first signal, once, unless it is held back or would be lost here."""
    request(number)
    if not (_raised or _held or _would_be_lost(frame)):
        check()


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Raises no Stopped within the block but after it. Processes started in it ignore Ctrl-C until they say otherwise:
    none ends with a traceback while it still imports."""
    global _held
    _held += 1
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        _held -= 1
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    check()


def _would_be_lost(frame: FrameType | None) -> bool:
    """Whether Python would print an exception raised here and go on: in a destructor, or a weak reference's callback.

    Every import ends with such a callback (`cb`), so that a Ctrl-C in the first second could be lost.
    """
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or code.co_filename.endswith(("weakref.py", "_weakrefset.py")):
            return True
        if code.co_name == "cb" and "importlib._bootstrap" in code.co_filename:
            return True
        frame = frame.f_back
    return False
