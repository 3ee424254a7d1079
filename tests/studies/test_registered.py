"""Studies are found by their names, and loaded when they are asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from finished_runs import KINDS, Runs
from tombola.errors import RunFolderError
from tombola.runs.configs import Config
from tombola.runs.folder import RunFolder, begin_or_continue, writing
from tombola.runs.sealed import read_sealed, write_sealed
from tombola.studies import registered
from tombola.studies.registered import STUDIES, list_runs, open_run, study_named


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_that_of_its_config(name: str) -> None:
    study = study_named(name)
    assert study.name == study.config_type.model_fields["study"].default == name


def test_to_know_them_loads_no_torch() -> None:
    script = "import sys, tombola.studies.registered; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_run_of_an_unknown_study_is_said_and_not_listed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "dance-small-01234567")
    with writing(folder):
        begin_or_continue(folder, "dance", Config(), {})
    with pytest.raises(RunFolderError, match="a run of the study dance, which this Tombola does not have"):
        open_run(folder.root)
    (listed,) = list_runs(tmp_path)
    assert (listed.study, listed.state) == ("dance", "not known")
    assert listed.outcome == "a run of the study dance, which this Tombola does not have"


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_run_is_listed_without_being_read(kind: str, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five hundred of them in a moment. What is damaged is read whole all the same, and said to be so."""
    folder = runs.restore(kind)
    with monkeypatch.context() as patch:
        patch.setattr(registered, "open_run", lambda root: pytest.fail("read"))
        quick = next(run for run in list_runs(runs.out) if run.folder == folder.name)
    with monkeypatch.context() as patch:
        patch.setattr(registered, "said_of", lambda folder: None)
        assert quick == next(run for run in list_runs(runs.out) if run.folder == folder.name)
    rows = folder / "rows.jsonl"
    rows.write_bytes(rows.read_bytes().replace(b"0", b"1", 1))
    assert next(run for run in list_runs(runs.out) if run.folder == folder.name).state == "damaged"
    runs.restore(kind)
    (folder / "report.html").write_text("")
    assert next(run for run in list_runs(runs.out) if run.folder == folder.name).state == "damaged"
    runs.restore(kind)


def test_what_another_version_said_is_not_read_back(runs: Runs) -> None:
    """A verdict of an earlier Tombola, or of one without a wording: the list says what `show` says."""
    folder = RunFolder(runs.restore("train"))
    content = read_sealed(folder.finished, "")
    said = {**content["said"], "outcome": "winning"}
    for old in ({**said, "wording": "0.0.1, 1"}, {key: said[key] for key in said if key != "wording"}):
        write_sealed(folder.finished, {**content, "said": old})
        listed = next(run for run in list_runs(runs.out) if run.folder == folder.root.name)
        assert listed.outcome == content["said"]["outcome"] != "winning"
    runs.restore("train")


@pytest.fixture(scope="module")
def runs(finished: Runs) -> Runs:
    return finished.restored()


def test_a_list_has_the_newest_run_first_and_damaged_ones_with_the_reason(tmp_path: Path) -> None:
    for name in ("train-a-00000000", "train-b-00000000", "train-c-00000000"):
        folder = RunFolder(tmp_path / name)
        with writing(folder):
            begin_or_continue(folder, "train", Config(), {})
    for name, created in (
        ("train-a-00000000", "2026-11-01T10:00:00+02:00"),
        ("train-c-00000000", "2026-11-01T09:00:00+00:00"),
    ):
        path = tmp_path / name / "manifest.json"
        write_sealed(path, {**read_sealed(path, ""), "created": created})
    (tmp_path / "train-b-00000000" / "manifest.json").write_text("{")
    (tmp_path / "compare-d-00000000").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "train-notes.txt").write_text("")
    listed = list_runs(tmp_path)
    assert [run.folder for run in listed] == [
        *("train-c-00000000", "train-a-00000000", "compare-d-00000000", "train-b-00000000")
    ]
    assert all(run.state == "damaged" and run.outcome and "\n" not in run.outcome for run in listed)
    assert [run.begun is None for run in listed] == [False, False, True, True]
    assert list_runs(tmp_path / "nothing") == []
