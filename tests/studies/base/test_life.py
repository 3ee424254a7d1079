"""Begun, continued, extended, shown: what every study inherits, on a study of ten lines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ten_lines
from ten_lines import STARTED, Squares, SquaresStudy

from listening import Heard
from small_models import contents, die_at_write
from tombola.errors import ConfigError, RunFailure, RunFolderError
from tombola.runs.inventory import is_finished
from tombola.runs.rows import Row, checks_path
from tombola.studies.base.life import run_study
from tombola.studies.base.opened import complete_replicates, open_study, read_result, remake_report
from tombola.studies.base.study import Call

CREATED = "manifest.json"
"""Says when it was begun."""


def run(out: Path, **changes: Any) -> list[Row]:
    call = {name: changes.pop(name) for name in ("workers", "results", "watcher") if name in changes}
    return run_study(SquaresStudy, Squares(**changes), Call(out, **call))


def folder_in(out: Path) -> Path:
    (folder,) = out.iterdir()
    return folder


def what_must_agree(out: Path) -> dict[str, Any]:
    """All files to the bit, but for the date; the inventory has that file's checksum."""
    found: dict[str, Any] = contents(folder_in(out))
    for name in (CREATED, "finished.json"):
        assert found.pop(name)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed; tests copy it."""
    out = tmp_path_factory.mktemp("whole")
    run(out)
    return out


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Which units were computed since."""
    path = tmp_path / "started"
    path.touch()
    monkeypatch.setenv(STARTED, str(path))
    return lambda: path.read_text().split()


class TestARun:
    def test_leaves_rows_report_results_and_an_inventory(self, whole: Path) -> None:
        folder = folder_in(whole)
        study = open_study(SquaresStudy, folder)
        assert [row["value"] for row in read_result(study)] == [0, 0, 1, 1] * 2
        assert complete_replicates(study) == {0, 1}
        assert (folder / "report.html").read_text() == "<p>8 rows</p>"
        assert is_finished(study.folder)
        assert {"study": "squares", "powers": ten_lines.POWERS, "threads": 1}.items() <= study.recorded.items()

    def test_that_is_finished_is_shown_at_once(self, copied: Path, started: Callable[[], list[str]]) -> None:
        before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
        assert len(run(copied)) == 8
        assert started() == []
        assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before

    def test_is_extended_and_never_made_smaller(self, copied: Path, started: Callable[[], list[str]]) -> None:
        heard = Heard()
        old = (folder_in(copied) / "rows.jsonl").read_bytes()
        assert len(run(copied, replicates=3, watcher=heard)) == 12
        assert started() == ["2-0.json", "2-1.json"]
        assert heard.begun == [(2, 0)]
        assert heard.units == ["0 squared", "1 squared"]
        assert (folder_in(copied) / "rows.jsonl").read_bytes().startswith(old)
        assert len(run(copied, replicates=1, watcher=heard)) == 12
        assert heard.lines == ["Asked for 1 replicates; the run has 3, all are shown."]
        assert len(started()) == 2

    @pytest.mark.slow
    def test_of_two_workers_has_the_same_rows(self, whole: Path, tmp_path: Path) -> None:
        run(tmp_path, workers=2)
        mine, theirs = what_must_agree(tmp_path), what_must_agree(whole)
        for name in ("rows.jsonl", "rows.checks", "results/rows.json"):  # in the order in which units ended
            mine.pop(name), theirs.pop(name)
        assert mine == theirs
        assert sorted(map(str, run(tmp_path))) == sorted(map(str, run(whole)))

    def test_copies_its_results_where_nobody_elses_are(self, copied: Path, tmp_path: Path) -> None:
        results = tmp_path / "results"
        run(copied, results=results)
        assert {path.name for path in results.iterdir()} == {"sum.json", "rows.json"}
        (results / "perhaps.json").touch()
        run(copied, results=results)
        assert not (results / "perhaps.json").exists()
        with pytest.raises(RunFolderError, match="holds files of another run"):
            run(tmp_path / "other", results=results, numbers=1)
        assert not (tmp_path / "other").exists()


class TestKilled:
    def test_at_any_write_it_ends_the_same(self, whole: Path, tmp_path: Path) -> None:
        assert _killed_everywhere(tmp_path, lambda out: run(out) and None) > 20
        for out in tmp_path.iterdir():
            assert what_must_agree(out) == what_must_agree(whole)

    @pytest.mark.filterwarnings("error")  # nothing of it seems damaged
    def test_at_any_write_of_an_extension_it_ends_the_same(self, whole: Path, tmp_path: Path) -> None:
        reference = Path(shutil.copytree(whole, tmp_path / "reference"))
        run(reference, replicates=3)
        tried = tmp_path / "tried"

        def extend(out: Path) -> None:
            if not out.exists():
                shutil.copytree(whole, out)
            run(out, replicates=3)

        assert _killed_everywhere(tried, extend) > 10
        for out in tried.iterdir():
            assert what_must_agree(out) == what_must_agree(reference)

    @pytest.mark.slow
    def test_with_its_workers_it_goes_on(self, tmp_path: Path) -> None:
        """A process of its own, and all that it started, by SIGKILL."""
        out = tmp_path / "out"
        script = "import sys, test_life; test_life.run(test_life.Path(sys.argv[1]), workers=2, numbers=80)"
        here = [str(Path(ten_lines.__file__).parent), str(Path(__file__).parents[2]), *sys.path]
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(out)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(here)},
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while not list(out.glob("*/rows.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, 9)
        assert process.wait() == -9
        assert not is_finished(open_study(SquaresStudy, folder_in(out)).folder)
        run(out, numbers=80)
        run(tmp_path / "whole", numbers=80)
        assert sorted(map(str, run(out, numbers=80))) == sorted(map(str, run(tmp_path / "whole", numbers=80)))

    @pytest.mark.parametrize("cut", [1, 40, 60, 150])
    def test_torn_units_are_completed_and_not_repeated(
        self, cut: int, whole: Path, copied: Path, started: Callable[[], list[str]]
    ) -> None:
        folder = folder_in(copied)
        rows = (folder / "rows.jsonl").read_bytes()
        (folder / "rows.jsonl").write_bytes(rows[:-cut])
        run(copied)
        assert started() == []
        assert what_must_agree(copied) == what_must_agree(whole)


def _killed_everywhere(where: Path, live: Callable[[Path], None]) -> int:
    """For every write a life that dies right after it, and another that comes to the end; how many there were."""
    at = 0
    while True:
        at += 1
        out = where / str(at)
        process = os.fork()
        if process == 0:
            try:
                die_at_write(at, before=False)
                live(out)
            finally:
                os._exit(0)
        ended = os.WIFEXITED(os.waitpid(process, 0)[1])
        live(out)
        if ended:
            return at


class TestWhatIsRefused:
    def test_before_it_is_begun_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be squared"):
            run(tmp_path / "out", refused="cannot be squared")
        assert not (tmp_path / "out").exists()

    def test_later_keeps_what_is_there(self, copied: Path) -> None:
        before = contents(copied)
        with pytest.raises(ConfigError, match="cannot be squared"):
            run(copied, replicates=3, refused="cannot be squared")
        assert contents(copied) == before

    def test_a_failed_check_is_said_and_stays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        failed = "self-check failed: -1 is negative; see .*rows.jsonl"
        monkeypatch.setattr(SquaresStudy, "failed_checks", lambda _, rows: ["-1 is negative"] if rows else [])
        for _ in range(2):
            with pytest.raises(RunFailure, match=failed):
                run(tmp_path)
        assert not (folder_in(tmp_path) / "report.html").exists()

    def test_another_study_and_one_that_is_not_begun(self, copied: Path, tmp_path: Path) -> None:
        class Other(SquaresStudy):
            name = "others"

        with pytest.raises(RunFolderError, match="a run of tombola squares; this is for runs of tombola others"):
            open_study(Other, folder_in(copied))
        folder = folder_in(copied)
        for path in (folder / "finished.json", folder / "rows.jsonl", checks_path(folder / "rows.jsonl")):
            path.unlink()
        with pytest.raises(ConfigError, match="nothing of it is complete yet"):
            read_result(open_study(SquaresStudy, folder_in(copied)))


class TestDamage:
    @pytest.mark.parametrize("name", ["report.html", "results/sum.json", "config.yaml"])
    def test_of_what_is_made_of_rows_is_mended(self, name: str, whole: Path, copied: Path) -> None:
        (folder_in(copied) / name).write_text("altered")
        with pytest.warns(UserWarning, match="altered or damaged since the run was finished, made anew"):
            run(copied)
        assert what_must_agree(copied) == what_must_agree(whole)

    def test_never_makes_a_run_smaller(self, copied: Path) -> None:
        run(copied, replicates=3)
        (folder_in(copied) / "results" / "sum.json").unlink()
        with pytest.warns(UserWarning, match="made anew"):
            assert len(run(copied)) == 12

    @pytest.mark.parametrize("name", ["checkpoints/1-1.json", "manifest.json"])
    def test_of_what_was_computed_is_refused(self, name: str, copied: Path) -> None:
        path = folder_in(copied) / name
        path.write_bytes(path.read_bytes().replace(b" 1", b" 7"))
        with pytest.raises(RunFolderError, match=f"{name}.*"):
            run(copied)

    def test_is_computed_again_when_it_is_asked_for(
        self, whole: Path, copied: Path, started: Callable[[], list[str]]
    ) -> None:
        folder = folder_in(copied)
        for name in ("finished.json", "checkpoints/1-1.json"):
            (folder / name).unlink()
        run(copied)
        assert started() == ["1-1.json"]
        assert what_must_agree(copied) == what_must_agree(whole)


def test_a_report_is_made_anew(copied: Path) -> None:
    study = open_study(SquaresStudy, folder_in(copied))
    study.folder.report.unlink()
    assert remake_report(study).read_text() == "<p>8 rows</p>"
    assert len(run(copied)) == 8
