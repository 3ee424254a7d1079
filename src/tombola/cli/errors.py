"""How a command ends that does not succeed: one line on standard error, and its exit code."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from tombola.cli.signals import STOPPED, acknowledge, exit_code
from tombola.errors import TombolaError
from tombola.runs import stopping


@contextmanager
def errors(debug: bool) -> Iterator[None]:
    """One line per error: exit 2 for what has to change, 1 for a failed run, 130 after Ctrl-C (143 after TERM)."""
    showing = warnings.showwarning
    warnings.showwarning = lambda message, *_, **__: typer.echo(f"warning: {message}", err=True)
    try:
        yield
    except KeyboardInterrupt:
        stopped()
    except Exception as error:
        if stopping.requested() is not None:  # what was interrupted fails in ways of its own, an import for one
            stopped()
        if debug or isinstance(error, typer.Exit):
            raise
        if isinstance(error, TombolaError):
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(error.exit_code) from None
        typer.echo(f"internal error: {type(error).__name__}: {error}; please report it with --debug", err=True)
        raise typer.Exit(1) from None
    finally:
        warnings.showwarning = showing


def stopped() -> NoReturn:
    """Ends a command that was interrupted: exit 128 plus the signal's number, Ctrl-C's when none was seen."""
    number = stopping.requested()
    if number is not None:
        acknowledge()
    typer.echo(STOPPED, err=True)
    raise typer.Exit(exit_code(number or signal.SIGINT)) from None
