"""The errors that Tombola raises on purpose: one line each, saying what is wrong, where, and what to do.

The command line prints that line and exits with the error's `exit_code`: 2 when something outside has to change
(input, options, a file, the disk, a learning rate that diverges; nothing was overwritten), 1 when the run itself
failed (a self-check, a lost worker).

What else is shown of a user's names passes `harmless`: a folder's name may hold codes that a terminal obeys.
"""

from __future__ import annotations

import unicodedata

JOINERS = "\u200c\u200d"
"""Invisible, and part of words in several scripts."""


def printable(text: str) -> str:
    """`text` as one line, whatever characters it is made of."""
    if text.isprintable():
        return text
    characters = (" " if c.isspace() else c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return "".join(characters).strip()


def counted(count: int, thing: str) -> str:
    """`1 exit`, `5 exits`."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


class TombolaError(Exception):
    """Base of every deliberate error. The message is one line for a person to act on.

    It may quote what a file or a folder calls itself: lines are joined, and what is not printable is written out, so
    that no escape code of a stranger reaches a terminal.
    """

    exit_code = 2

    def __init__(self, message: object = "", *details: object) -> None:
        super().__init__(printable(str(message)), *details)


class ConfigError(TombolaError):
    """A configuration, option or argument that cannot be used."""


class DataError(TombolaError):
    """A data set that is missing, damaged or unfit for the study."""


class ModelError(TombolaError):
    """A model or model folder that cannot be built, read or trusted."""


class PruningError(TombolaError):
    """A pruning request that makes no sense or cannot be met exactly."""


class StorageError(TombolaError):
    """A file or folder that cannot be read or written."""


class RunFolderError(TombolaError):
    """A run folder that is in use, belongs to another version, or is damaged."""


class KernelError(TombolaError):
    """A machine that sparse kernels do not run on, or a matrix that they cannot hold."""


class TrainingError(TombolaError):
    """Training that cannot go on, such as a loss that is no longer a number."""


class RunFailure(TombolaError):  # noqa: N818 (a failed run is the field's word, not a bad argument)
    """A run whose self-check failed, or that lost a worker process."""

    exit_code = 1


def one_line(error: BaseException, limit: int = 300) -> str:
    r"""What an error of somebody else's says, as a part of our one line: at most `limit` characters, no line breaks.

    The name of its class where it says nothing.

    >>> one_line(ValueError("no such\n  layer"))
    'no such layer'
    >>> one_line(MemoryError())
    'MemoryError'
    """
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= limit else said[: limit - 3] + "..."


def one_line_by_name(error: BaseException, limit: int = 300) -> str:
    """As `one_line`, after the name of the error's class, for errors of code that we do not know."""
    name, said = type(error).__name__, one_line(error, limit)
    return said if said == name else f"{name}: {said}"


def harmless(text: str, keep: str = "\n\t") -> str:
    r"""`text` with what a terminal or a browser would obey instead of showing it written as escapes.

    These are control characters but for `keep`, invisible ones that turn the direction of writing, lone surrogates.

    >>> harmless("run\x1b[2J\u202e")
    'run\\x1b[2J\\u202e'
    """
    return "".join(character if _is_plain(character, keep) else ascii(character)[1:-1] for character in text)


def in_line(path: object) -> str:
    r"""A path as it stands in a sentence: a line break in its name is written as an escape, too.

    >>> in_line("runs/two\nlines")
    'runs/two\\nlines'
    """
    return harmless(str(path), keep="")


def _is_plain(character: str, keep: str) -> bool:
    if character.isprintable() or character in keep or character in JOINERS:
        return True
    return unicodedata.category(character) in ("Zs", "Cn", "Co")
