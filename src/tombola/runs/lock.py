"""A run folder has one writer: an advisory `flock` that the system releases when the process dies."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from tombola.errors import RunFolderError
from tombola.runs.atomic import storage_errors


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds the lock file at `path`; a RunFolderError when another process holds it."""
    with storage_errors("lock", path):
        file = path.open("ab")
    with file:
        with storage_errors("lock", path):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunFolderError(
                    f"{path.parent}: another process is working in this run folder; wait for it or stop it first"
                ) from None
        yield
