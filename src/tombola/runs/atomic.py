"""Files that are either whole or not there: write to a temporary name, fsync, rename.

A process may die at any instant between two lines of this module and a reader will still find the old
file or the new one. Every problem of the file system becomes one StorageError line.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tombola.errors import StorageError
from tombola.runs import limits, stopping
from tombola.runs.kinds import LONGEST, other_kind
from tombola.runs.strict_json import parse_json

TEMPORARY_SUFFIX = ".tombola-tmp"
AGAIN = "mend it and run the command again"
"""How an error ends of what could not be written."""


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces `path` by `data`, atomically and durably. What is there and is no file, such as a device, stays."""
    if not path.name or "\0" in str(path):
        raise StorageError(f"cannot write {str(path)!r}: it names no file")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise StorageError(f"cannot write {path}: it is a device or a pipe, not a file; name another one")
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    with storage_errors("write", path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            stopping.check()
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """UTF-8; bytes of a file name that are none are written as escapes."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Strict JSON: a NaN or an infinity is a programming error here, a missing value is null."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_bytes(path: Path, limit: int) -> bytes:
    """The whole file; a StorageError when it cannot be read, is no regular file or larger than `limit` bytes."""
    with storage_errors("read", path), opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise StorageError(f"{path}: {size:,} bytes is more than the {limit:,} expected at most")
        content = file.read(size + 1)  # no more than that: as much memory would be taken
        if len(content) > size:
            raise StorageError(f"{path}: holds more than the {size:,} bytes that it says; wait until it is written")
        return content


@contextlib.contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """A regular file to be read; a StorageError for a device, a pipe or a socket, which may have no end or no start.

    Links are followed to what they lead to. Other problems are OSErrors.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # which would else wait for somebody to write into a pipe
    with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor has no path)
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(kind):
            raise StorageError(f"{path}: a device, a pipe or a socket, only plain files are read; copy it to one")
        yield file


def read_json(path: Path, limit: int = limits.JSON) -> Any:
    """Parsed JSON; a StorageError that names the file when it is not JSON (see `strict_json`)."""
    return json_in(read_bytes(path, limit), path)


def json_in(content: bytes, path: Path, remedy: str = "") -> Any:
    """The value in `content`, read from `path`; a StorageError that names the file when it is none."""
    try:
        return parse_json(content)
    except ValueError as error:
        what = other_kind(content[:LONGEST], "JSON", "empty") or "the file is damaged"
        end = f"; {remedy}" if remedy else ""
        raise StorageError(f"{path}: not readable as JSON, {what} ({error}){end}") from None


def remove(path: Path) -> None:
    """Removes a file, if there is one."""
    with storage_errors("remove", path):
        path.unlink(missing_ok=True)


def refuse_links(root: Path) -> None:
    """StorageError where anything below `root` is neither a folder nor a regular file.

    A run or a model folder may come from elsewhere: through a link in it, files outside would be read and overwritten.
    `root` itself may be a link, it was named by the user.
    """
    with storage_errors("look into", root):
        folders = [root]
        while folders:
            for entry in os.scandir(folders.pop()):
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    folders.append(Path(entry.path))
                elif not stat.S_ISREG(mode):
                    kind = "a link" if stat.S_ISLNK(mode) else "a pipe, a socket or a device"
                    raise StorageError(
                        f"{entry.path}: is {kind}; only regular files in the folder itself are read and written: put "
                        "the file itself there, or remove it"
                    )


def make_folder(path: Path) -> None:
    with storage_errors("create the folder", path):
        path.mkdir(parents=True, exist_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Removes what killed writers left below `folder`."""
    with storage_errors("clean", folder):
        for leftover in list(folder.rglob(f".*{TEMPORARY_SUFFIX}")):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def storage_errors(verb: str, path: Path) -> Iterator[None]:
    """Turns an OSError inside the block into a StorageError that names the path and the reason."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        way_out = "" if verb == "read" else f"; {AGAIN}"
        raise StorageError(f"cannot {verb} {path}: {reason}{way_out}") from error


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself durable; some file systems refuse to sync a folder, which is no error."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
