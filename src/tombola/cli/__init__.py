"""The command line. The entry point is here and small, so that signals are attended to before anything is imported.

`commands` holds the app; a command is a few lines that call a study, and lies in `lottery`, `single`, `hybrid` or
`runs` by what it is about.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

from tombola.errors import TombolaError

if TYPE_CHECKING:
    from tombola.cli.commands import app

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module 'tombola.cli' has no attribute {name!r}")
    from tombola.cli.commands import app

    return app


def main() -> None:
    """The entry point of the `tombola` command."""
    from tombola.cli.pipes import open_the_closed, watched_output
    from tombola.cli.signals import acknowledge, attended, exit_code, leave, say_stopped
    from tombola.runs import stopping

    open_the_closed()
    nobody_reads = watched_output()
    try:
        with attended():
            from tombola.cli.commands import app
            from tombola.cli.console import show_what_can_be_shown

            show_what_can_be_shown()  # here for --help, too
            app()
    except BaseException as end:
        number = stopping.requested()
        if number is None:
            if isinstance(end, SystemExit) and end.code == 1 and nobody_reads():
                leave(exit_code(signal.SIGPIPE))  # as of any program whose reader has had enough
            if isinstance(end, OSError) and "--debug" not in sys.argv:  # of a help text, which no command prints
                print(f"error: {end.strerror or end}", file=sys.stderr)
                leave(TombolaError.exit_code)
            raise
        if not isinstance(end, SystemExit) or end.code != exit_code(number):  # it came outside of a command
            acknowledge()
            say_stopped()
        leave(exit_code(number))
