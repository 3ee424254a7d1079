"""One writer at a time, and no folder continued that would end differently."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tombola.errors import RunFolderError, StorageError
from tombola.runs import folder as folder_module
from tombola.runs.atomic import TEMPORARY_SUFFIX
from tombola.runs.configs import Config, load_config
from tombola.runs.folder import RunFolder, begin_or_continue, run_folder, writing
from tombola.runs.lock import exclusive


class Asked(Config):
    size: int = 1
    notes: str = ""


EARLIER = "run folder of an earlier version of Tombola; use the version that made it, or another --out"
FACTS = {"data": {"checksum": "md5:1", "input_shape": [1, 8, 8]}}

HOLD = """
import sys, time
from pathlib import Path
from tombola.runs.lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_second_writer_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError, match="another process is working") as caught, exclusive(lock):
            pass
        assert str(tmp_path) in str(caught.value)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with exclusive(lock):
        pass


def test_the_lock_is_freed_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path / "lock"):
        _ = 1 / 0
    with exclusive(tmp_path / "lock"):
        pass


def test_a_file_system_without_locks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", unsupported)
    with pytest.raises(StorageError, match="cannot lock"), exclusive(tmp_path / "lock"):
        pass


def test_an_error_of_the_work_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), exclusive(tmp_path / "lock"):
        raise FileNotFoundError


def test_the_folder_is_named_by_what_was_asked(tmp_path: Path) -> None:
    one = run_folder(tmp_path, "lottery", "digits", Asked())
    assert one == run_folder(tmp_path, "lottery", "digits", Asked(size=1))
    assert one != run_folder(tmp_path, "lottery", "digits", Asked(size=2))
    prefix, _, digits = one.root.name.rpartition("-")
    assert prefix == "lottery-digits"
    assert len(digits) == 8


def test_a_run_begins_and_continues(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "run")
    with writing(folder):
        begin_or_continue(folder, "s", Asked(size=3), FACTS)
        (folder.root / f".rows.1{TEMPORARY_SUFFIX}").write_text("half")
    before = _contents(folder.root)
    with writing(folder):
        begin_or_continue(folder, "s", Asked(size=3), FACTS)
    assert _contents(folder.root) == {name: data for name, data in before.items() if not name.startswith(".")}
    assert load_config(folder.config, Asked) == Asked(size=3)
    manifest = folder.read_manifest()
    assert manifest["must_match"]["data"] == FACTS["data"]
    assert {"python", "torch", "tombola", "numpy"} <= set(manifest["must_match"]["versions"])


def test_a_run_killed_between_manifest_and_config_continues(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    begin_or_continue(folder, "s", Asked(), FACTS)
    folder.config.unlink()
    begin_or_continue(folder, "s", Asked(), FACTS)
    assert load_config(folder.config, Asked) == Asked()


@pytest.mark.parametrize("change", ["data", "versions", "study"])
def test_changed_facts_are_refused_by_name_and_nothing_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    folder = RunFolder(tmp_path)
    begin_or_continue(folder, "s", Asked(), FACTS)
    folder.rows.write_text('{"a":1}\n')
    before = _contents(tmp_path)
    facts, study = FACTS, "s"
    if change == "data":
        facts = {"data": {"checksum": "md5:2", "input_shape": [1, 8, 8]}}
    elif change == "study":
        study = "other"
    else:
        monkeypatch.setattr(folder_module, "version", lambda _: "0.0.1")
    with pytest.raises(RunFolderError, match=f"begun with {change} ") as caught:
        begin_or_continue(folder, study, Asked(notes="new"), facts)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert _contents(tmp_path) == before


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        (json.dumps({"format": 2, "layout": 3, "must_match": {}}), "checksum .* damaged"),
        (json.dumps({"must_match": {}}), EARLIER),
        (json.dumps({"format": 1, "must_match": {}}), EARLIER),
        (json.dumps({"layout": 4, "must_match": {}}), "run folder of layout 4, this Tombola has 3; use the version"),
        ("[]", "damaged"),
        ("{", "damaged"),
        (json.dumps({"layout": 3, "must_match": []}), "damaged"),
    ],
)
def test_a_manifest_of_another_kind_is_refused_and_not_rewritten(tmp_path: Path, manifest: str, says: str) -> None:
    folder = RunFolder(tmp_path)
    folder.manifest.write_text(manifest)
    before = _contents(tmp_path)
    with pytest.raises(RunFolderError, match=says):
        begin_or_continue(folder, "s", Asked(), FACTS)
    assert _contents(tmp_path) == before


def test_rows_without_a_manifest_are_not_taken_over(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.rows.write_text('{"a":1}\n')
    with pytest.raises(RunFolderError, match="no manifest"):
        begin_or_continue(folder, "s", Asked(), FACTS)
    assert _contents(tmp_path) == {"rows.jsonl": b'{"a":1}\n'}


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="not a run folder"):
        RunFolder(tmp_path).read_manifest()
