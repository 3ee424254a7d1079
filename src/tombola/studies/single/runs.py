"""Runs of `tombola train`, `prune` and `compare`, read back."""

from __future__ import annotations

from pathlib import Path

from tombola.errors import RunFolderError, TombolaError
from tombola.reports.tables import Table
from tombola.runs.folder import RunFolder
from tombola.runs.inventory import findings, refuse
from tombola.studies.single.compare import read_grid
from tombola.studies.single.comparison import Comparison, summarise
from tombola.studies.single.comparison_report import lead as lead_of_comparison
from tombola.studies.single.config import CompareConfig
from tombola.studies.single.report import lead
from tombola.studies.single.result import Result, read_result

STUDIES = ("train", "prune", "compare")


def study_of(root: Path) -> str:
    """Which study made a run folder; RunFolderError when it is none."""
    return str(RunFolder(root).read_manifest()["must_match"].get("study"))


def open_single(root: Path, *, quick: bool = False) -> Result | Comparison:
    """A finished run of one of these studies; RunFolderError while it is not finished, or where a file has changed.

    With `quick` the content of large files is not read.
    """
    folder = RunFolder(root)
    if study_of(root) == "compare":
        config = folder.read_config(CompareConfig)
        rows = read_grid(folder)
        if len(rows) < config.replicates * (1 + len(config.ways())):
            raise RunFolderError(f"{root}: not finished; the command that began it goes on")
        refuse(folder, findings(folder, quick=quick))
        return summarise(root, config, rows)
    result = read_result(folder, quick=quick)
    if result is None:
        raise RunFolderError(f"{root}: not finished; the command that began it goes on")
    return result


def runs_table(out: Path) -> Table | None:
    """One line for every such run below `out`; None where there is none."""
    rows = []
    for manifest in sorted(path for study in STUDIES for path in out.glob(f"{study}-*/manifest.json")):
        try:
            run = open_single(manifest.parent, quick=True)
            said = lead_of_comparison(run) if isinstance(run, Comparison) else lead(run.stages)
        except TombolaError as error:
            said = str(error).partition(": ")[2] or str(error)
        rows.append((manifest.parent.name, said))
    return Table(("Run", "What came of it"), rows) if rows else None
