"""Features on disk: parts of a few hundred examples, one folder per key in the user's cache, bounded as a whole.

A key stands for all that makes the features, so an entry never goes stale. Each part is written whole or not at all and
carries a checksum: a killed computation goes on where it was, a damaged part is computed again. Two processes that
compute the same part write the same file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tombola.errors import ConfigError, DataError, StorageError
from tombola.models.tensors import load_own, save_tensors
from tombola.runs.atomic import make_folder, storage_errors
from tombola.runs.cache import cache_folder

FEATURES = "features"
LIMIT_GIB = 20.0
VARIABLE = "TOMBOLA_FEATURE_CACHE_GIB"
PART = 512
"""Examples in a file."""


@dataclass(frozen=True)
class FeatureCache:
    """The entry of `key`: features (count, *shape) float32."""

    key: str
    count: int
    shape: tuple[int, ...]

    @property
    def folder(self) -> Path:
        return cache_folder(FEATURES) / self.key

    @property
    def size(self) -> int:
        """Bytes of all features."""
        return 4 * self.count * torch.Size(self.shape).numel()

    def parts(self) -> list[slice]:
        """The examples of each part, in order."""
        return [slice(start, min(start + PART, self.count)) for start in range(0, self.count, PART)]

    @property
    def missing(self) -> int:
        """Examples whose features are not stored; damage is only seen when they are read."""
        return sum(part.stop - part.start for part in self.parts() if not self._path(part).exists())

    def read(self, part: slice) -> Tensor | None:
        """The features of a part; None where they are not stored, or damaged."""
        try:
            found = load_own(self._path(part))[0].get("features")
        except StorageError:
            return None
        expected = (part.stop - part.start, *self.shape)
        return found if found is not None and found.shape == expected and found.dtype == torch.float32 else None

    def write(self, part: slice, features: Tensor) -> None:
        """Stores the features of a part, even where another study has made room of this entry meanwhile."""
        make_folder(self.folder)
        save_tensors(self._path(part), {"features": features})

    def begin(self) -> None:
        """Makes the folder, and room for all parts: the entries that were not used for longest go first.

        Raises DataError where these features alone are more than the cache may hold.
        """
        limit = limit_bytes()
        if self.size > limit:
            raise DataError(
                f"the features of {self.count:,} examples take {self.size / 2**30:.1f} GiB, more than the cache's "
                f"{limit / 2**30:.3g}; choose a deeper data.base.layer or smaller images, or set {VARIABLE}"
            )
        make_folder(self.folder)
        with storage_errors("use", self.folder):
            os.utime(self.folder)  # used now
            others = [entry for entry in _entries() if entry.folder != self.folder]
            total = self.size + sum(entry.size for entry in others)
            for entry in others:
                if total <= limit:
                    break
                shutil.rmtree(entry.folder, ignore_errors=True)
                total -= entry.size

    def _path(self, part: slice) -> Path:
        return self.folder / f"part-{part.start // PART:05d}.safetensors"


def limit_bytes() -> float:
    """How much the whole cache may hold; ConfigError where the variable is no positive number."""
    text = os.environ.get(VARIABLE, str(LIMIT_GIB))
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise ConfigError(f"{VARIABLE} is {text!r}; it is the number of GiB that cached features may take")
    return limit * 2**30


@dataclass(frozen=True, order=True)
class _Entry:
    """What is there of some features: when they were last used, where they lie, and their bytes."""

    used: float
    folder: Path
    size: int


def _entries() -> list[_Entry]:
    """All entries, the one that was not used for longest first. Other processes may be removing some."""
    found = []
    for folder in cache_folder(FEATURES).iterdir():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            size = sum(path.stat().st_size for path in folder.iterdir())
            found.append(_Entry(folder.stat().st_mtime, folder, size))
    return sorted(found)
