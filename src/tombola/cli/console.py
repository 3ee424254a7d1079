"""The terminal that commands print results and, apart from them, progress to, whatever characters it can show."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TYPE_CHECKING, Any

import typer

from tombola.errors import harmless

if TYPE_CHECKING:
    from rich.console import Console

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
    typer.echo(harmless(text), file=sys.stderr if err else sys.stdout)


def terminal(*, err: bool = False) -> Console:
    """Standard output, which results go to; a file or pipe gets lines wide enough for a table.

    With `err` standard error, for progress and notes: what reads results does not meet them.
    """
    from rich.console import Console

    class Terminal(Console):
        """Prints no text that a terminal would obey; colours are rich's own."""

        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*(harmless(o) if isinstance(o, str) else o for o in objects), **options)

    console = Terminal(stderr=err)
    return console if console.is_terminal or "COLUMNS" in os.environ else Terminal(stderr=err, width=140)
