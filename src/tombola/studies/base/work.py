"""A study at work: units that cells leave on disk go into its table, and whoever watches is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tombola.errors import RunFailure
from tombola.runs.executors import Cell, run_cells
from tombola.runs.folder import RunFolder
from tombola.runs.rows import Row, RowTable, read_unit
from tombola.runs.sealed import write_sealed
from tombola.studies.base.watching import Watcher

Key = tuple[Any, ...]
"""What a unit's columns hold."""
AGAIN = "delete it and run the command again: this part is made anew"


@dataclass(frozen=True)
class Finished:
    """What a cell sends: a unit's rows are in the file `path`."""

    path: Path


def write_unit(path: Path, rows: Sequence[Row], **facts: Any) -> None:
    """Keeps the rows of a unit that is finished; a cell's last write of it."""
    write_sealed(path, {"rows": list(rows), **facts})


def unit_rows(path: Path) -> list[Row]:
    """The rows that `write_unit` has kept."""
    return read_unit(path, AGAIN)


class Describing(Protocol):
    """What `Work` needs of a study."""

    @property
    def own_functions(self) -> tuple[str, ...]: ...
    @property
    def folder(self) -> RunFolder: ...
    def failed_checks(self, rows: Sequence[Row]) -> list[str]: ...
    def described(self, rows: Sequence[Row]) -> str: ...


class Work:
    """The only writer of a run's table, for the one who holds the lock of its folder."""

    def __init__(self, study: Describing, table: RowTable, workers: int, watcher: Watcher) -> None:
        self.study = study
        self.table = table
        self.workers = workers
        self.watcher = watcher
        self._left: deque[Key] = deque()
        self._waiting: dict[Key, list[Row]] = {}
        self._refuse_failed(table.rows)  # what failed once stays so

    @property
    def rows(self) -> list[Row]:
        """All rows of the table."""
        return self.table.rows

    def append(self, rows: Sequence[Row]) -> bool:
        """Appends a unit, or what the table lacks of it; whether that was anything. RunFailure where a check failed."""
        fresh = self.table.append_unit(rows)
        self._refuse_failed(fresh)
        return bool(fresh)

    def cells(self, cell: Cell, specs: Sequence[Any]) -> None:
        """Runs `cell(spec, emit)` for every spec; their units go into the table, their progress to the watcher."""
        from tombola.studies.base.own_code import Unedited  # here: who lists runs need not load torch

        names = self.study.own_functions
        run_cells(Unedited(cell, self.study.folder.root, names) if names else cell, specs, self.workers, self._hear)

    def write_in_order(self, keys: Iterable[Key]) -> None:
        """From now on units are appended in the order of `keys`, whatever the order in which they end.

        For units of one row. Equal runs then have equal tables, however many workers they had.
        """
        self._left = deque(key for key in keys if not self.table.holds(key))

    def _hear(self, event: Any) -> None:
        if not isinstance(event, Finished):
            self.watcher.progress(event)
            return
        rows = unit_rows(event.path)
        key = self.table.key_of(rows[0])
        if key in self._left:
            self._refuse_failed(rows)
            self._waiting[key] = rows
            while self._left and self._left[0] in self._waiting:
                self.table.append_unit(self._waiting.pop(self._left.popleft()))
        elif not self.append(rows):
            return
        self.watcher.unit(self.study.described(rows))

    def _refuse_failed(self, rows: Sequence[Row]) -> None:
        """A failed check ends the run: no result is made of it."""
        if failed := self.study.failed_checks(rows):
            raise RunFailure(f"self-check failed: {'; '.join(failed)}; see {self.table.path}")
