"""How a command ends that does not succeed: one line on standard error, and its exit code."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from tombola.cli.console import results_alone, say
from tombola.cli.signals import BEGINS_ANEW, CONTINUES, acknowledge, after_a_stop, exit_code, say_stopped
from tombola.errors import TombolaError, one_line_by_name
from tombola.runs import stopping
from tombola.runs.atomic import AGAIN

LOST_NOTHING = ": nothing finished was lost"


@contextmanager
def errors(debug: bool, *, runs: bool = False) -> Iterator[None]:
    """One line per error: exit 2 for what has to change, 1 for a failed run, 130 after Ctrl-C (143 after TERM).

    Within the block standard output has results alone. A command that `runs` a study keeps what is finished, and says
    so when it ends early; any other begins anew.
    """
    showing = warnings.showwarning
    after_a_stop(CONTINUES if runs else BEGINS_ANEW)
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}", err=True)
    try:
        with results_alone():
            yield
    except KeyboardInterrupt:
        stopped()
    except BrokenPipeError:
        raise  # whoever read our output has gone; click ends quietly
    except Exception as error:
        if stopping.requested() is not None:  # what was interrupted fails in ways of its own, an import for one
            stopped()
        if debug or isinstance(error, typer.Exit):
            raise
        if isinstance(error, TombolaError):
            said = " ".join(str(error).split())
            say(f"error: {said}{LOST_NOTHING if runs and said.endswith(AGAIN) else ''}", err=True)
            raise typer.Exit(error.exit_code) from None
        if isinstance(error, (OSError, MemoryError)):
            say(f"error: {_of_the_system(error, runs)}", err=True)
            raise typer.Exit(TombolaError.exit_code) from None
        say(f"internal error: {one_line_by_name(error)}; report it with --debug", err=True)
        raise typer.Exit(1) from None
    finally:
        warnings.showwarning = showing


def _of_the_system(error: OSError | MemoryError, runs: bool) -> str:
    """What the disk or the memory lacks, in one line: nobody on the way here knew more of it."""
    if isinstance(error, MemoryError):
        return "out of memory; close other programs, or take smaller data or fewer workers"
    where = "" if error.filename is None else f"{error.filename}: "
    way_out = f"; {AGAIN}{LOST_NOTHING}" if runs else ""
    return f"{where}{error.strerror or error}{way_out}"


def stopped() -> NoReturn:
    """Ends a command that was interrupted: exit 128 plus the signal's number, Ctrl-C's when none was seen."""
    number = stopping.requested()
    if number is not None:
        acknowledge()
    say_stopped()
    raise typer.Exit(exit_code(number or signal.SIGINT)) from None
