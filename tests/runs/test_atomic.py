"""Files are old or new, never between, whatever happens to the writer."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tombola.errors import StorageError
from tombola.runs.atomic import (
    TEMPORARY_SUFFIX,
    make_folder,
    read_bytes,
    read_json,
    remove_temporaries,
    write_bytes,
    write_json,
    write_text,
)


def _no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [1, None, "ü"]})
    assert read_json(tmp_path / "a.json") == {"x": [1, None, "ü"]}
    write_text(tmp_path / "a.json", "other")
    assert read_bytes(tmp_path / "a.json", limit=5) == b"other"


@pytest.mark.parametrize("broken", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(broken, _no_space)
        with pytest.raises(StorageError) as caught:
            write_bytes(path, b"new")
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert os.strerror(errno.ENOSPC) in message
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_half_way_leaves_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_one_line_that_names_the_path(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "file"
    for act in (lambda: write_bytes(path, b"x"), lambda: read_bytes(path, 10)):
        with pytest.raises(StorageError) as caught:
            act()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match="taken"):
        make_folder(tmp_path / "taken")


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    write_bytes(tmp_path / "large", b"123456")
    with pytest.raises(StorageError, match="6 bytes is more than the 5"):
        read_bytes(tmp_path / "large", limit=5)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"nul"])
def test_damaged_json_is_one_line_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"a\.json: not readable as JSON") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    keep = [tmp_path / "rows.jsonl", deep / ".hidden", deep / f"visible{TEMPORARY_SUFFIX}"]
    for path in [*keep, tmp_path / f".x.1{TEMPORARY_SUFFIX}", deep / f".y.2{TEMPORARY_SUFFIX}"]:
        path.write_text("x")
    remove_temporaries(tmp_path)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(keep)


REWRITE_FOREVER = """
import sys
from pathlib import Path
from tombola.runs.atomic import write_json
path = Path(sys.argv[1])
number = 0
while True:
    write_json(path, [number] * 20_000)
    number += 1
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, [-1] * 20_000)
    for pause in (0.0, 0.003, 0.011, 0.027):
        before = path.stat().st_mtime_ns
        writer = subprocess.Popen([sys.executable, "-c", REWRITE_FOREVER, str(path)])
        try:
            while path.stat().st_mtime_ns == before and writer.poll() is None:
                time.sleep(0.001)
            time.sleep(pause)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        content = json.loads(path.read_bytes())
        assert len(content) == 20_000
        assert len(set(content)) == 1
    remove_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
