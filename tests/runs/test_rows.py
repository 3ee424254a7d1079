"""The table survives torn lines, torn units and full disks, and never hides damage."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealing import write_table
from tombola.errors import RunFolderError, StorageError
from tombola.runs.rows import Row, RowTable, read_rows, rows_of

UNIT = ("replicate", "round")


def _unit(replicate: int, index: int, count: int = 3) -> list[Row]:
    return [{"replicate": replicate, "round": index, "step": step, "loss": step / 7} for step in range(count)]


UNITS = [_unit(0, 0), _unit(0, 1, 1), _unit(1, 0, 4), _unit(1, 1, 2)]
ALL_ROWS = [row for unit in UNITS for row in unit]


def _write_all(path: Path) -> bytes:
    table = RowTable(path, UNIT)
    for unit in UNITS:
        table.append_unit(unit)
    return path.read_bytes()


with tempfile.TemporaryDirectory() as _folder:
    WHOLE = _write_all(Path(_folder) / "rows.jsonl")


def test_no_file_is_an_empty_table(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "rows.jsonl") == []
    assert RowTable(tmp_path / "rows.jsonl", UNIT).append_unit([]) == []
    assert not (tmp_path / "rows.jsonl").exists()


def test_rows_come_back_in_order_and_as_they_were(tmp_path: Path) -> None:
    _write_all(tmp_path / "rows.jsonl")
    assert read_rows(tmp_path / "rows.jsonl") == ALL_ROWS
    assert rows_of(ALL_ROWS, replicate=1, round=1) == UNITS[3]


def test_a_unit_is_added_once(tmp_path: Path) -> None:
    table = RowTable(tmp_path / "rows.jsonl", UNIT)
    assert table.append_unit(UNITS[0]) == UNITS[0]
    assert table.append_unit(UNITS[0]) == []
    assert RowTable(table.path, UNIT).append_unit(UNITS[0]) == []
    assert read_rows(table.path) == UNITS[0]


@given(cut=st.integers(0, len(WHOLE)))
@settings(max_examples=150)
def test_a_table_cut_at_any_byte_is_completed_to_the_same_bytes(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_table(path, WHOLE.splitlines(keepends=True))  # a kill leaves more checks than rows, never fewer
        path.write_bytes(WHOLE[:cut])
        whole_rows = WHOLE[:cut].count(b"\n")
        assert read_rows(path) == ALL_ROWS[:whole_rows]
        table = RowTable(path, UNIT)
        assert path.read_bytes() == WHOLE[: WHOLE[:cut].rfind(b"\n") + 1]
        added = [row for unit in UNITS for row in table.append_unit(unit)]
        assert added == ALL_ROWS[whole_rows:]
        assert table.rows == ALL_ROWS
        assert path.read_bytes() == WHOLE


TWICE, TOO_LARGE = (
    b'{"kind": "training", "replicate": 0, "round": 1, "round": 2}',
    b'{"kind": "training", "replicate": 0, "round": 1, "loss": 1e400}',
)


@pytest.mark.parametrize("damage", [b"{", b"", b"\xff\xfe", b"[1]", b"3", b"[" * 100_000, TWICE, TOO_LARGE])
def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    lines = WHOLE.splitlines(keepends=True)
    write_table(path, [lines[0], damage + b"\n", *lines[2:]])
    before = path.read_bytes()
    for read in (lambda: read_rows(path), lambda: RowTable(path, UNIT)):
        with pytest.raises(RunFolderError, match="line 2 is damaged") as caught:
            read()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    table = RowTable(path, UNIT)
    table.append_unit(UNITS[0])
    before = path.read_bytes()
    plain_open = Path.open

    class HalfWrites:
        """A file on a disk with room for ten more bytes."""

        def __init__(self, file: Any) -> None:
            self.file = file
            self.room = 10

        def __enter__(self) -> HalfWrites:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, data: memoryview) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = self.file.write(data[: self.room])
            self.room -= written
            return written

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, *a, **k: HalfWrites(plain_open(self, *a, **k)))
        with pytest.raises(StorageError) as caught:
            table.append_unit(UNITS[2])
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert table.rows == UNITS[0]
    assert table.append_unit(UNITS[2]) == UNITS[2]
    assert read_rows(path) == [*UNITS[0], *UNITS[2]]


def test_a_row_with_nan_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    table = RowTable(tmp_path / "rows.jsonl", UNIT)
    with pytest.raises(ValueError, match="JSON"):
        table.append_unit([*_unit(0, 0), {"replicate": 0, "round": 0, "loss": float("nan")}])
    assert not table.path.exists()
