"""The user's cache: what can be had again, by a download or a computation."""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path:
    """The folder of the user's cache that is ours; RuntimeError for a user without a home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tombola"
