"""What a finished run consists of: `finished.json`, written last, with size and SHA-256 of every other file.

Its absence says that a run is not finished. A file that is gone, cut or altered afterwards is found by it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola.errors import RunFolderError
from tombola.runs.atomic import TEMPORARY_SUFFIX, remove, storage_errors
from tombola.runs.folder import RunFolder
from tombola.runs.rows import checks_path
from tombola.runs.sealed import read_sealed, write_sealed

APART = ("stability",)
"""Folders of what is measured after a run was finished; their files carry checksums themselves."""
CHECKPOINT_SUFFIX = ".checkpoint.safetensors"
QUICK = 1 << 20
"""Bytes of the files whose content is looked at where many runs are listed; of larger ones it is the size."""


@dataclass(frozen=True)
class Findings:
    """What is not as it was when the run was finished: files by their paths in the folder, and too few rows."""

    gone: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()
    rows_are_gone: bool = False

    def __bool__(self) -> bool:
        return bool(self.gone or self.altered or self.rows_are_gone)

    def among(self, wanted: Callable[[str], bool]) -> Findings:
        """Those of the files whose names are `wanted`."""
        gone, altered = (tuple(name for name in names if wanted(name)) for names in (self.gone, self.altered))
        return Findings(gone, altered)


def seal(folder: RunFolder, apart: Collection[str] = (), said: Mapping[str, str] | None = None) -> None:
    """Says that the run is finished with the files that it has now, those in the folders `apart` left out.

    For the one who holds the run's lock, as the last write. `said` is what a list of runs says of it.
    """
    files = {name: _entry(path) for name, path in _files(folder, apart)}
    content: dict[str, Any] = {"rows": _count_rows(folder), "files": files}
    if said is not None:
        content |= {"said": dict(said), "table": _entry(folder.rows)}
    write_sealed(folder.finished, content)


def said_of(folder: RunFolder) -> dict[str, str] | None:
    """What was `said` of a finished run, as long as its table is the one that it was said of; None for others."""
    content = _read(folder)
    said = None if content is None else content.get("said")
    if content is None or not isinstance(said, dict) or not folder.rows.is_file():
        return None
    return {str(k): str(v) for k, v in said.items()} if content.get("table") == _entry(folder.rows) else None


def unseal(folder: RunFolder) -> None:
    """Says that the run is not finished (any more), before anything of it is changed."""
    remove(folder.finished)


@contextlib.contextmanager
def rewriting(folder: RunFolder, path: Path) -> Iterator[None]:
    """For a file of a finished run that is made anew within the block: a kill there leaves none that seems altered."""
    content = _read(folder)
    name = path.relative_to(folder.root).as_posix()
    if content is not None:
        write_sealed(folder.finished, {**content, "files": {k: v for k, v in content["files"].items() if k != name}})
    yield
    if content is not None:
        write_sealed(folder.finished, {**content, "files": {**content["files"], name: _entry(path)}})


def is_finished(folder: RunFolder) -> bool:
    """Whether the run was finished by its own account."""
    folder.refuse_other_layouts()
    return folder.finished.exists()


def findings(folder: RunFolder, *, quick: bool = False) -> Findings | None:
    """What has changed since the run was finished; None where it is not finished.

    With `quick` the content of large files is not read.
    """
    folder.refuse_other_layouts()
    content = _read(folder)
    if content is None:
        return None
    gone, altered = [], []
    for name, entry in content["files"].items():
        path = folder.root / name
        with storage_errors("read", path):
            if not path.is_file():
                gone.append(name)
            elif path.stat().st_size != entry["bytes"] or (
                not (quick and entry["bytes"] > QUICK) and _sha256(path) != entry["sha256"]
            ):
                altered.append(name)
    return Findings(tuple(gone), tuple(altered), _count_rows(folder) < content["rows"])


def warn(folder: RunFolder, found: Findings) -> None:
    """Says what a command is about to make anew."""
    for names, what in ((found.gone, "gone"), (found.altered, "altered or damaged")):
        if names:
            warnings.warn(
                f"{folder.root}: {', '.join(names)}: {what} since the run was finished, made anew", stacklevel=2
            )


def refuse(folder: RunFolder, found: Findings | None) -> None:
    """RunFolderError in one line for the first of the `found` changes, with how to go on."""
    if not found:
        return
    if found.rows_are_gone:
        lost = "rows at its end are gone" if folder.rows.exists() else "is gone since the run was finished"
        raise RunFolderError(f"{folder.rows}: {lost}; put it back from a copy, or run the command that made it again")
    names = (*found.altered, *found.gone)
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    if found.altered:
        raise RunFolderError(
            f"{folder.root / names[0]}{more}: altered, cut short or damaged since the run was finished; put it back "
            f"from a copy, or delete it and finished.json and run the command that made it again: it is made anew"
        )
    raise RunFolderError(
        f"{folder.root / names[0]}{more}: is gone since the run was finished; put it back from a copy, or delete "
        f"finished.json and run the command that made it again: it is made anew"
    )


def _read(folder: RunFolder) -> dict[str, Any] | None:
    path = folder.finished
    if not path.exists():
        return None
    remedy = "delete it and run the command that made it again: finished work is kept"
    content = read_sealed(path, remedy)
    files = content.get("files")
    if not (
        isinstance(content.get("rows"), int)
        and isinstance(files, dict)
        and all(_is_name(name) and isinstance(e, dict) and {"bytes", "sha256"} <= e.keys() for name, e in files.items())
    ):
        raise RunFolderError(f"{path}: is damaged; {remedy}")
    return content


def _is_name(name: str) -> bool:
    """A path below the folder: a file from elsewhere cannot have others read."""
    return not name.startswith("/") and ".." not in name.split("/") and "\0" not in name


def _files(folder: RunFolder, apart: Collection[str]) -> Iterator[tuple[str, Path]]:
    """All files that stay as they are, by name: no lock, nothing to continue from, nor the table, which has checks."""
    own = {folder.lock, folder.rows, checks_path(folder.rows), folder.finished}
    with storage_errors("look into", folder.root):
        for where, folders, names in os.walk(folder.root):
            folders[:] = sorted(name for name in folders if name not in (*APART, *apart))
            for name in sorted(names):
                path = Path(where) / name
                if path not in own and not name.endswith((TEMPORARY_SUFFIX, CHECKPOINT_SUFFIX)):
                    yield path.relative_to(folder.root).as_posix(), path


def _entry(path: Path) -> dict[str, Any]:
    with storage_errors("read", path):
        return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _count_rows(folder: RunFolder) -> int:
    with storage_errors("read", folder.rows):
        return folder.rows.read_bytes().count(b"\n") if folder.rows.exists() else 0
