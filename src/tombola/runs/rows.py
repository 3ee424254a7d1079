"""The tidy table of a run: `rows.jsonl`, one measurement a line, append-only, written by one process.

Rows arrive in units (one training, say) whose rows have a fixed order. A unit that was torn by a kill is
completed, not repeated: the table knows how many rows of each unit it already holds.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tombola.errors import RunFolderError, StorageError
from tombola.runs import stopping
from tombola.runs.atomic import read_json, storage_errors

Row = dict[str, Any]


class RowTable:
    """Appends to `path`; `unit` names the columns that identify a unit of rows."""

    def __init__(self, path: Path, unit: Sequence[str]) -> None:
        self.path = path
        self.unit = tuple(unit)
        self._drop_torn_line()
        self.rows = read_rows(path, self.unit)
        self._held = Counter(self._unit_of(row) for row in self.rows)

    def append_unit(self, rows: Sequence[Row]) -> list[Row]:
        """Appends those rows of one finished unit that the table does not hold yet; returns what it added."""
        if not rows:
            return []
        key = self._unit_of(rows[0])
        fresh = list(rows[self._held[key] :])
        if fresh:
            with storage_errors("append to", self.path):
                _append_durably(self.path, "".join(_line(row) for row in fresh).encode())
            self.rows.extend(fresh)
            self._held[key] += len(fresh)
        return fresh

    def _unit_of(self, row: Row) -> tuple[Any, ...]:
        return tuple(row.get(column) for column in self.unit)

    def _drop_torn_line(self) -> None:
        """Cuts a last line without its newline, which a kill or a full disk can leave."""
        if not self.path.exists():
            return
        with storage_errors("repair", self.path), self.path.open("r+b") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)


def read_rows(path: Path, columns: Sequence[str] = ()) -> list[Row]:
    """All whole rows of a table; a torn last line is ignored, a damaged one in the middle is an error.

    Every row must have the `columns`.
    """
    if not path.exists():
        return []
    with storage_errors("read", path):
        lines = path.read_bytes().split(b"\n")
    rows: list[Row] = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not set(columns) <= row.keys():
            raise RunFolderError(f"{path}: line {number} is damaged; move the run folder away and start again")
        rows.append(row)
    return rows


def read_unit(path: Path, remedy: str) -> list[Row]:
    """The rows of a finished unit as its cell wrote them; a StorageError with the `remedy` where they are damaged."""
    try:
        rows: list[Row] = read_json(path)["rows"]
        if not rows or not all(isinstance(row, dict) for row in rows):
            raise TypeError("holds no rows")
    except (StorageError, KeyError, TypeError) as error:
        raise StorageError(f"{path}: damaged ({error}); {remedy}") from None
    return rows


def rows_of(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows whose columns have the wanted values."""
    return [row for row in rows if all(row.get(column) == value for column, value in wanted.items())]


def _line(row: Row) -> str:
    return json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n"


def _append_durably(path: Path, data: bytes) -> None:
    """One append; if the disk fills half way the torn end is cut, so that the table stays whole lines."""
    stopping.check()
    with path.open("ab", buffering=0) as file:
        start = file.seek(0, os.SEEK_END)
        try:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(start)
            raise
