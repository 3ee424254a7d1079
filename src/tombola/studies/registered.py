"""The studies there are, by name, each loaded when it is asked for: a list of runs need not load torch to know them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tombola.errors import RunFolderError, TombolaError
from tombola.reports.tables import Table
from tombola.runs.folder import RunFolder
from tombola.studies.base.opened import complete_replicates, open_study, read_result, refuse_changes
from tombola.studies.base.study import Study

STUDIES = {
    "lottery": "lottery.study:Lottery",
    "hybrid": "hybrid.study:Hybrid",
    "train": "single.train:Train",
    "prune": "single.prune:Prune",
    "compare": "single.compare:Compare",
}
"""Where each is: module below `studies`, and class."""


def study_named(name: str) -> type[Study[Any, Any]]:
    module, _, study = STUDIES[name].partition(":")
    found: type[Study[Any, Any]] = getattr(importlib.import_module(f"tombola.studies.{module}"), study)
    return found


def study_of(root: Path) -> str:
    """The name of the study that made a run folder; RunFolderError where it is none."""
    return str(RunFolder(root).read_manifest()["must_match"].get("study"))


def open_run(root: Path) -> Study[Any, Any]:
    """The study of the run in folder `root`; RunFolderError where it is no run of ours."""
    name = study_of(root)
    if name not in STUDIES:
        raise RunFolderError(f"{root}: a run of the study {name}, which this Tombola does not have")
    return open_study(study_named(name), root)


def list_runs(out: Path) -> Table | None:
    """One line for every run below `out`; None where there is none."""
    rows = [(root.name, *_line(root)) for root in sorted(_runs_below(out))]
    return Table(("Run", "State", "What came of it"), rows) if rows else None


def _runs_below(out: Path) -> Iterator[Path]:
    for name in STUDIES:
        yield from (manifest.parent for manifest in out.glob(f"{name}-*/manifest.json"))


def _line(root: Path) -> tuple[str, str]:
    """How far a run is and its outcome, or what is wrong with it."""
    try:
        study = open_run(root)
        done = len(complete_replicates(study))
        result = read_result(study) if done == study.replicates else None
        refuse_changes(study, quick=True)
    except TombolaError as error:
        return "damaged", str(error).removeprefix(f"{root}").lstrip("/: ")
    return study.state(done), "not finished" if result is None else study.outcome(result)
