"""A run folder has one writer: an advisory `flock` that the system releases when the process dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from tombola.errors import RunFolderError
from tombola.runs.atomic import storage_errors


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds the lock file at `path`; a RunFolderError when another process holds it."""
    with storage_errors("lock", path):
        # A link is not followed: it would make a file elsewhere.
        file = os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666), "ab"
        )
    with file:
        with storage_errors("lock", path):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunFolderError(
                    f"{path.parent}: another process is working in this run folder; wait for it or stop it first"
                ) from None
        yield
