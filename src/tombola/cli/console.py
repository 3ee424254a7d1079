"""The terminal that commands print results and, apart from them, progress to, whatever characters it can show."""

from __future__ import annotations

import codecs
import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO

import typer

from tombola.errors import harmless

if TYPE_CHECKING:
    from rich.console import Console

    from tombola.studies.base.output import Output

PLAIN = {
    "×": "x",
    "µ": "u",
    "±": "+/-",
    "−": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "·": ".",
    "²": "2",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "é": "e",
    "ö": "o",
    "Δ": "d",
    "σ": "s",
}
"""What stands for a character that a terminal's encoding lacks; for any other a question mark."""
HANDLER = "tombola-plain"
_results: ContextVar[TextIO | None] = ContextVar("results", default=None)


@contextlib.contextmanager
def results_alone() -> Iterator[None]:
    """Within the block results alone go to standard output; what somebody's own code prints goes to standard error."""
    token = _results.set(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _results.reset(token)


def _output() -> TextIO:
    """Where results go."""
    return _results.get() or sys.stdout


def show_what_can_be_shown() -> None:
    """Lets output pass to a terminal or file of any encoding: what it lacks is replaced, and is no error."""
    codecs.register_error(HANDLER, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(character, "?") for character in error.object[error.start : error.end]), error.end


def say(text: str, *, err: bool = False) -> None:
    """Prints a line of a command, without what a terminal would obey.

    To the stream itself: where it is an ASCII one, typer would write UTF-8 past it.
    """
    typer.echo(harmless(text), file=sys.stderr if err else _output())


def give(as_json: bool, output: Callable[[], Output], show: Callable[[Console], None]) -> None:
    """Prints a result on standard output: for a program as one JSON object and nothing else, or for a person."""
    if as_json:
        typer.echo(output().to_json(), file=_output())
    else:
        show(terminal())


def tell(console: Console, text: str) -> None:
    """Prints the sentences of a result, wrapped at words."""
    from tombola.reports.terminal import say

    say(console, text)


def terminal(*, err: bool = False) -> Console:
    """Standard output, which results go to, as wide as the terminal, or 80 columns where there is none.

    With `err` standard error, for progress and notes: what reads results does not meet them.
    """
    from rich.console import Console

    class Terminal(Console):
        """Prints no text that a terminal would obey; colours are rich's own."""

        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*(harmless(o) if isinstance(o, str) else o for o in objects), **options)

    return Terminal(stderr=True) if err else Terminal(file=_output())
