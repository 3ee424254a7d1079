"""The tidy table of a run: `rows.jsonl`, one measurement a line, append-only, written by one process.

Rows arrive in units (one training, say) whose rows have a fixed order. A unit that was torn by a kill is
completed, not repeated: the table knows how many rows of each unit it already holds.

Beside it, `rows.checks` has a check value for every line, chained: a line that was altered, lost, doubled or exchanged
no longer fits its own. What a column may hold is said by a `Schema` of the study (`columns`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tombola.errors import RunFolderError, StorageError
from tombola.runs import limits, stopping
from tombola.runs.atomic import read_bytes, storage_errors, write_bytes
from tombola.runs.columns import Schema, misfit
from tombola.runs.sealed import read_sealed
from tombola.runs.strict_json import parse_json

Row = dict[str, Any]

CHECK_DIGITS = 16
"""Hexadecimal digits of a check value: 64 bits."""


class RowTable:
    """Appends to `path`; `unit` names the columns that identify a unit of rows."""

    def __init__(self, path: Path, unit: Sequence[str], schema: Schema | None = None) -> None:
        self.path = path
        self.unit = tuple(unit)
        self.rows = read_rows(path, self.unit, schema)
        self._last = self._cut_torn_ends()
        self._held = Counter(self.key_of(row) for row in self.rows)

    def append_unit(self, rows: Sequence[Row]) -> list[Row]:
        """Appends those rows of one finished unit that the table does not hold yet; returns what it added."""
        if not rows:
            return []
        key = self.key_of(rows[0])
        fresh = list(rows[self._held[key] :])
        if fresh:
            self._append([_line(row) for row in fresh])
            self.rows.extend(fresh)
            self._held[key] += len(fresh)
        return fresh

    def _append(self, lines: Sequence[bytes]) -> None:
        """The check values first: a table that has fewer is damaged, one that has more was torn by a kill."""
        stopping.check()
        checks = list(_chain(self._last, lines))
        with storage_errors("append to", self.path):
            _append_durably(checks_path(self.path), b"".join(check + b"\n" for check in checks))
            try:
                _append_durably(self.path, b"".join(lines))
            except BaseException:
                self._cut_torn_ends()
                raise
        self._last = checks[-1]

    def key_of(self, row: Row) -> tuple[Any, ...]:
        """What names the unit of a row: its `unit` columns."""
        return tuple(row.get(column) for column in self.unit)

    def holds(self, key: tuple[Any, ...]) -> bool:
        """Whether any row of a unit is there."""
        return self._held[key] > 0

    def _cut_torn_ends(self) -> bytes:
        """Cuts what a kill or a full disk can leave: a last line without its newline, checks without their lines.

        Gives the last check value.
        """
        whole = 0
        with storage_errors("repair", self.path):
            for path in (self.path, checks_path(self.path)):
                if path.exists() and path.lstat().st_nlink > 1:  # another name of the file, in a backup say, keeps it
                    write_bytes(path, path.read_bytes())
            if self.path.exists():
                content = read_bytes(self.path, limits.ROWS)
                whole = content.count(b"\n")
                _truncate(self.path, content.rfind(b"\n") + 1)
            checks = _read_checks(self.path)[:whole]
            _truncate(checks_path(self.path), whole * (CHECK_DIGITS + 1))
        return checks[-1] if checks else b""


def checks_path(rows: Path) -> Path:
    """The file of a table's check values."""
    return rows.with_suffix(".checks")


def read_rows(path: Path, columns: Sequence[str] = (), schema: Schema | None = None) -> list[Row]:
    """All whole rows of a table; a torn last line is ignored, a damaged one in the middle is an error.

    Every row must have the `columns`, and what the `schema` says of its kind; every line must fit its check value.
    """
    if not path.exists():
        return []
    with storage_errors("read", path):
        refuse_odd(path)
        lines = read_bytes(path, limits.ROWS).split(b"\n")[:-1]
        refuse_odd(checks_path(path))
        _verify(path, lines)
    return [_row(path, number, line, columns, schema or {}) for number, line in enumerate(lines, start=1)]


def _row(path: Path, line_number: int, line: bytes, columns: Sequence[str], schema: Schema) -> Row:
    try:
        row = parse_json(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not set(columns) <= row.keys():
        raise damaged(path, line_number)
    kind = row.get("kind")
    if wrong := misfit(row, schema.get(kind if isinstance(kind, str) else "", {})):
        raise damaged(path, line_number, f"a row of kind {kind}: {wrong}")
    return row


def damaged(path: Path, line_number: int, reason: str = "") -> RunFolderError:
    """What is said of a line that cannot be used, with how to go on."""
    why = f" ({reason})" if reason else ""
    return RunFolderError(
        f"{path}: line {line_number} is damaged{why}; put the file back from a copy, or cut it before this line and "
        "run the command again: what is finished is taken from checkpoints/"
    )


def _verify(path: Path, lines: Sequence[bytes]) -> None:
    """RunFolderError at the first line that does not fit its check value."""
    checks = _read_checks(path)
    for line_number, found in enumerate(_chain(b"", [line + b"\n" for line in lines])):
        if line_number >= len(checks) or checks[line_number] != found:
            raise damaged(path, line_number + 1, f"it does not fit its check in {checks_path(path).name}")


def _read_checks(path: Path) -> list[bytes]:
    checks = checks_path(path)
    return checks.read_bytes().split(b"\n")[:-1] if checks.exists() else []


def _chain(before: bytes, lines: Iterable[bytes]) -> Iterator[bytes]:
    """The check value of each line: of its bytes and of the check value before it."""
    for line in lines:
        before = hashlib.sha256(before + line).hexdigest()[:CHECK_DIGITS].encode()
        yield before


def refuse_odd(path: Path) -> None:
    """StorageError for what is not a regular file, a link for example."""
    with storage_errors("read", path):
        if path.is_symlink() or (path.exists() and not stat.S_ISREG(path.lstat().st_mode)):
            raise StorageError(
                f"{path}: is a link, a folder or a device, not a file of the run; put the file itself there"
            )


def read_unit(path: Path, remedy: str) -> list[Row]:
    """The rows of a finished unit as its cell wrote them; a StorageError with the `remedy` where they are damaged."""
    rows = read_sealed(path, remedy).get("rows")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise StorageError(f"{path}: damaged (holds no rows); {remedy}")
    return rows


def rows_of(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows whose columns have the wanted values."""
    return [row for row in rows if all(row.get(column) == value for column, value in wanted.items())]


def _line(row: Row) -> bytes:
    return (json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n").encode()


def _truncate(path: Path, size: int) -> None:
    """Cuts a file that is longer than `size` bytes."""
    if path.exists() and path.lstat().st_size > size:
        with _own(path, "r+b") as file:
            file.truncate(size)


@contextlib.contextmanager
def _own(path: Path, mode: str) -> Iterator[IO[bytes]]:
    """The open file `path`, which must be a regular file of that name: never what a link leads to."""
    refuse_odd(path)
    with path.open(mode, buffering=0) as file:
        here, there = os.fstat(file.fileno()), path.lstat()
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            raise StorageError(f"{path}: was replaced while it was opened; run the command again")
        yield file


def _append_durably(path: Path, data: bytes) -> None:
    """One append; if the disk fills half way the torn end is cut, so that the table stays whole lines."""
    with _own(path, "ab") as file:
        start = file.seek(0, os.SEEK_END)
        try:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(start)
            raise
