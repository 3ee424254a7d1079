"""Arrays out of HDF5 files, as Keras writes its weights: only such as lie in the file itself, as plain float32.

HDF5 can link to other files, read from any file of the machine, load plugins that unpack, and claim more than it
holds. All of that is refused before a byte is read. Needs h5py, which comes with the extra `keras`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tombola.errors import ModelError, one_line
from tombola.runs import limits
from tombola.runs.kinds import LONGEST, other_kind

DEPTH_LIMIT, ENTRY_LIMIT = limits.HDF5_DEPTH, limits.HDF5_ENTRIES


class Hdf5File:
    """An HDF5 file in memory; `where` begins every error. Each array is read once: they hold no more than the file."""

    def __init__(self, content: bytes, where: str) -> None:
        self.where = where
        self._h5py = _h5py()
        self._left, self._entries = len(content), 0
        if what := other_kind(content[:LONGEST], "HDF5"):
            raise ModelError(f"{where}: damaged, cut short or not HDF5 ({what})")
        with self._damage_named():
            self._root = self._h5py.File(io.BytesIO(content), "r")

    def names(self, group: str = "") -> list[str]:
        """What lies in `group`, a path from the root; nothing where there is no such group."""
        with self._damage_named():
            found = self._at(group)
            return list(found) if isinstance(found, self._h5py.Group) else []

    def label(self, group: str) -> str | None:
        """The attribute `name` of `group`, where Keras 3 keeps the name of the layer."""
        with self._damage_named():
            label = self._at(group).attrs.get("name")
            return label if isinstance(label, str) else None

    def walk(self, group: str = "") -> Iterator[str]:
        """The paths of all groups and arrays below `group`, in the order of their names."""
        with self._damage_named():
            start = self._at(group)
        yield from self._below(start, group, 0)

    def _below(self, current: Any, group: str, depth: int) -> Iterator[str]:
        with self._damage_named():
            names = list(current) if isinstance(current, self._h5py.Group) else []
        for name in names:
            self._entries += 1
            if self._entries > ENTRY_LIMIT or depth > DEPTH_LIMIT:  # a group may hold itself
                raise ModelError(f"{self.where}: holds more groups and arrays than are expected at most")
            path = f"{group}/{name}".lstrip("/")
            yield path
            with self._damage_named():
                inner = self._child(current, name, path)
            yield from self._below(inner, path, depth + 1)

    def tensor(self, path: str) -> Tensor:
        """The array at `path`; ModelError where there is none or it is no plain float32 of this file, or not finite."""
        with self._damage_named():
            dataset = self._at(path)
            if not isinstance(dataset, self._h5py.Dataset):
                raise ModelError(f"{self.where}: holds no array {path}")
            self._check_plain(path, dataset)
            array = np.asarray(dataset[()])
        if not np.isfinite(array).all():
            raise ModelError(f"{self.where}: array {path} holds NaN or infinite values, there is nothing to use in it")
        return torch.from_numpy(array)

    def _at(self, path: str) -> Any:
        """What lies at `path`, every part of it being in this file; None where there is nothing."""
        current = self._root
        for part in path.split("/") if path else ():
            current = self._child(current, part, path)
        return current

    def _child(self, group: Any, name: str, path: str) -> Any:
        """What `group` holds under `name`, if it is a group; ModelError about `path` for a link out of this file."""
        link = group.get(name, getlink=True) if isinstance(group, self._h5py.Group) else None
        if link is None:
            return None
        if type(link) is not self._h5py.HardLink:
            raise ModelError(f"{self.where}: {path} is a link to elsewhere, which is not followed")
        return group[name]

    def _check_plain(self, path: str, dataset: Any) -> None:
        stored = dataset.id.get_create_plist()
        if stored.get_external_count() or stored.get_layout() == self._h5py.h5d.VIRTUAL:
            raise ModelError(f"{self.where}: array {path} lies in another file, which is not opened")
        if stored.get_nfilters():
            raise ModelError(f"{self.where}: array {path} is packed, as Keras never packs weights; save it plainly")
        if dataset.shape is None:
            raise ModelError(f"{self.where}: array {path} is empty, it has no shape")
        if dataset.dtype != np.float32:
            raise ModelError(f"{self.where}: array {path} holds {dataset.dtype}, wanted is float32")
        self._left -= dataset.nbytes
        if dataset.id.get_storage_size() < dataset.nbytes or self._left < 0:
            raise ModelError(f"{self.where}: array {path} says {dataset.shape}, more than the file holds")

    @contextlib.contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except ModelError:
            raise
        except Exception as error:  # h5py meets damage with many kinds of error
            raise ModelError(f"{self.where}: damaged, cut short or not HDF5 ({one_line(error)})") from None


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise ModelError("Keras files need h5py, which is not installed: pip install 'tombola[keras]'") from None
    return h5py
