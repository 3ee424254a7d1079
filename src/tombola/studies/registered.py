"""The studies there are, by name, each loaded when it is asked for: a list of runs need not load torch to know them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tombola.errors import RunFolderError, TombolaError
from tombola.reports.tables import Table
from tombola.runs.folder import RunFolder
from tombola.runs.inventory import findings, refuse, said_of
from tombola.studies.base.numbers import MISSING
from tombola.studies.base.opened import complete_replicates, open_study, read_result, refuse_changes
from tombola.studies.base.study import WORDING, Study

STUDIES = {
    "lottery": "lottery.study:Lottery",
    "hybrid": "hybrid.study:Hybrid",
    "train": "single.train:Train",
    "prune": "single.prune:Prune",
    "remove": "single.remove:Remove",
    "compare": "single.compare:Compare",
    "compress": "compress.study:Compress",
    "stress": "stress.study:Stress",
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


@dataclass(frozen=True)
class Listed:
    """A run in a list. `begun` is a time of day in UTC, ISO 8601; what is not known of a damaged run is None."""

    begun: str | None
    study: str
    name: str
    outcome: str
    state: str
    folder: str


def list_runs(out: Path) -> list[Listed]:
    """The runs below `out`, the newest first; what is damaged or no run of ours is listed with the reason, last."""
    found = [_listed(root) for root in sorted(_runs_below(out))]
    return sorted(found, key=lambda run: run.begun or "", reverse=True)


def runs_table(runs: Sequence[Listed]) -> Table:
    """One line for each."""
    rows = [(_when(run.begun), run.study, run.folder, run.outcome, run.state) for run in runs]
    return Table(("Begun", "Study", "Run", "What came of it", "State"), rows)


def _when(begun: str | None) -> str:
    """In the time of this place."""
    return MISSING if begun is None else datetime.fromisoformat(begun).astimezone().strftime("%Y-%m-%d %H:%M")


def _runs_below(out: Path) -> Iterator[Path]:
    """Folders that have a manifest, or the name of a run's."""
    for root in out.iterdir() if out.is_dir() else ():
        named = root.name.partition("-")[0] in STUDIES and root.is_dir()
        if named or (root / "manifest.json").exists():
            yield root


def _listed(root: Path) -> Listed:
    """How far a run is and its outcome, or what is wrong with it."""
    begun, kind, name = None, root.name.partition("-")[0], root.name
    try:
        manifest = RunFolder(root).read_manifest()
        begun = _time(manifest.get("created"))
        kind = str(manifest["must_match"].get("study"))
        last = said_of(RunFolder(root)) if kind in STUDIES else None
        if last is not None and last.get("wording") == WORDING:  # without what takes long to load
            refuse(RunFolder(root), findings(RunFolder(root), quick=True))
            name, outcome, state = (last.get(key, MISSING) for key in ("name", "outcome", "state"))
            return Listed(begun, kind, name, outcome, state, root.name)
        study = open_run(root)
        name = study.called
        done = len(complete_replicates(study))
        result = read_result(study) if done == study.replicates else None
        refuse_changes(study, quick=True)
    except TombolaError as error:
        said = str(error).removeprefix(f"{root}").lstrip("/: ")
        return Listed(begun, kind, name, said, "damaged" if kind in STUDIES else "not known", root.name)
    outcome = "not finished" if result is None else study.outcome(result)
    return Listed(begun, kind, name, outcome, study.state(done), root.name)


def _time(created: Any) -> str | None:
    """A manifest's time, if it is one."""
    try:
        moment = datetime.fromisoformat(created)
        return moment.astimezone(UTC).isoformat() if moment.tzinfo else None
    except (TypeError, ValueError):
        return None
