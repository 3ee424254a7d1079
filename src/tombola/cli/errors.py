"""How a command ends that does not succeed: one line on standard error, and its exit code."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from tombola.errors import TombolaError


@contextmanager
def errors(debug: bool) -> Iterator[None]:
    """One line per error: exit 2 for what has to change, 1 for a failed run, 130 after Ctrl-C (143 after TERM)."""
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    showing = warnings.showwarning
    warnings.showwarning = lambda message, *_, **__: typer.echo(f"warning: {message}", err=True)
    try:
        yield
    except KeyboardInterrupt:
        stopped(received)
    except TombolaError as error:
        if debug:
            raise
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(error.exit_code) from None
    except Exception as error:
        if received:  # an import that was interrupted fails in ways of its own
            stopped(received)
        if debug:
            raise
        typer.echo(f"internal error: {type(error).__name__}: {error}; please report it with --debug", err=True)
        raise typer.Exit(1) from None
    finally:
        warnings.showwarning = showing
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped(received: list[int]) -> NoReturn:
    """Ends a command that a signal interrupted: exit 128 plus its number, Ctrl-C when none was seen."""
    typer.echo("stopped; finished work is kept, the same command continues", err=True)
    raise typer.Exit(128 + (received[0] if received else signal.SIGINT)) from None
