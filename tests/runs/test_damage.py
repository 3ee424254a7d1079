"""No flipped bit, cut, lost or foreign file of a run passes in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sealing import write_table
from tombola.errors import RunFolderError, StorageError, harmless
from tombola.runs.columns import count, fraction
from tombola.runs.configs import Config
from tombola.runs.folder import RunFolder, begin_or_continue, holds_nothing, writing
from tombola.runs.inventory import findings, refuse, seal
from tombola.runs.rows import RowTable, checks_path, read_rows
from tombola.runs.sealed import read_sealed, write_sealed

UNIT = ("replicate",)
ROWS = [{"replicate": 0, "kind": "training", "accuracy": step / 7} for step in range(4)]


class Asked(Config):
    size: int = 1


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_flipped_bit_of_a_sealed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    write_sealed(path, {"model": {"widths": [3, 4]}, "history": {}})
    content = path.read_bytes()
    assert read_sealed(path, "x") == {"model": {"widths": [3, 4]}, "history": {}}
    for bit in range(8 * len(content)):
        path.write_bytes(flipped(content, bit))
        with pytest.raises(StorageError):
            read_sealed(path, "x")


def test_every_flipped_bit_of_a_table_is_noticed_or_completed(tmp_path: Path) -> None:
    """A last newline that is gone looks like a kill, and is completed like one."""
    path = tmp_path / "rows.jsonl"
    RowTable(path, UNIT).append_unit(ROWS)
    for file in (path, checks_path(path)):
        content = file.read_bytes()
        for bit in range(8 * len(content)):
            file.write_bytes(flipped(content, bit))
            if file == path and bit // 8 == len(content) - 1:
                assert read_rows(path) == ROWS[:-1]
                continue
            with pytest.raises(RunFolderError, match=r"rows.jsonl: line \d"):
                read_rows(path)
        file.write_bytes(content)


@pytest.mark.parametrize("order", [[0, 2, 3], [0, 1, 1, 2, 3], [1, 0, 2, 3]], ids=["lost", "doubled", "exchanged"])
def test_lines_that_are_not_where_they_were(order: list[int], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    RowTable(path, UNIT).append_unit(ROWS)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[i] for i in order))
    with pytest.raises(RunFolderError, match="line"):
        read_rows(path)


@pytest.mark.parametrize("value", ['"0.5"', "null", "-1", "NaN", "true"])
def test_a_row_with_another_value_names_line_and_column(value: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_table(path, [b'{"replicate":0,"kind":"training","accuracy":' + value.encode() + b"}\n"])
    with pytest.raises(RunFolderError, match=r"rows.jsonl: line 1 is damaged(;| \(a row of kind training)"):
        read_rows(path, UNIT, {"training": {"replicate": count, "accuracy": fraction}})
    write_table(path, [b'{"replicate":0,"kind":"training"}\n'])
    with pytest.raises(RunFolderError, match="has no accuracy"):
        read_rows(path, UNIT, {"training": {"replicate": count, "accuracy": fraction}})


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    with writing(folder):
        begin_or_continue(folder, "s", Asked(), {})
        folder.table(UNIT).append_unit(ROWS)
        folder.report.write_text("<p>report</p>")
        seal(folder)
    return folder


def test_a_finished_run_knows_its_files(run: RunFolder) -> None:
    assert not findings(run)
    run.report.write_text("<p>rePort</p>")
    with pytest.raises(RunFolderError, match=r"report\.html: altered"):
        refuse(run, findings(run))
    run.report.unlink()
    with pytest.raises(RunFolderError, match=r"report\.html: is gone"):
        refuse(run, findings(run))


def test_nothing_is_written_through_a_link(run: RunFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside.jsonl"
    run.rows.rename(outside)
    run.rows.symlink_to(outside)
    before = outside.read_bytes()
    with pytest.raises(StorageError, match="is a link"), writing(run):
        pass
    with pytest.raises(StorageError, match="is a link"):
        RowTable(run.rows, UNIT).append_unit([{"replicate": 9}])
    assert outside.read_bytes() == before


def test_another_name_of_the_table_keeps_what_it_had(run: RunFolder, tmp_path: Path) -> None:
    backup = tmp_path / "backup.jsonl"
    backup.hardlink_to(run.rows)
    before = backup.read_bytes()
    run.table(UNIT).append_unit([{"replicate": 1}])
    assert backup.read_bytes() == before
    assert len(run.read_rows(UNIT)) == len(ROWS) + 1


def test_another_processor_is_refused_by_name(run: RunFolder) -> None:
    other = RunFolder(run.root.with_name("other"))
    other.root.mkdir()
    begin_or_continue(other, "s", Asked(), {"processor": {"torch": "AVX512"}})
    with pytest.raises(RunFolderError, match=r"begun with processor .*AVX512.*go on where it was begun"):
        begin_or_continue(other, "s", Asked(), {"processor": {"torch": "AVX2"}})


def test_rows_without_their_checks_are_not_read(run: RunFolder) -> None:
    checks_path(run.rows).unlink()
    with pytest.raises(RunFolderError, match=r"line 1 is damaged \(it does not fit its check in rows.checks\)"):
        run.read_rows(UNIT)


def test_a_manifest_without_its_checksum_is_damaged(run: RunFolder) -> None:
    content = json.loads(run.manifest.read_text())
    del content["sha256"]
    run.manifest.write_text(json.dumps(content))
    with pytest.raises(RunFolderError, match="checksum"):
        run.read_rows(UNIT)


def test_what_a_killed_beginning_leaves_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    assert holds_nothing(tmp_path)
    (tmp_path / "notes.txt").touch()
    assert not holds_nothing(tmp_path)


def test_what_a_terminal_would_obey_is_shown() -> None:
    assert harmless("a\x1b[2Jb\u202ec\udce9 µ±") == "a\\x1b[2Jb\\u202ec\\udce9 µ±"
