"""Studies are found by their names, and loaded when they are asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tombola.errors import RunFolderError
from tombola.runs.configs import Config
from tombola.runs.folder import RunFolder, begin_or_continue, writing
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
    assert list_runs(tmp_path) is None
    folder.root.rename(tmp_path / "train-small-01234567")
    table = list_runs(tmp_path)
    assert table is not None
    assert table.rows[0][1] == "damaged"
