"""The user's cache: what can be had again, by a download or a computation."""

from __future__ import annotations

import os
from pathlib import Path

from tombola.errors import StorageError


def cache_home() -> Path:
    """The folder of the user's cache that is ours; RuntimeError for a user without a home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tombola"


def cache_folder(name: str) -> Path:
    """The part of the cache called `name`; StorageError for a user without a home."""
    try:
        return cache_home() / name
    except RuntimeError:
        raise StorageError("this user has no home to keep a cache in; set XDG_CACHE_HOME to a folder") from None
