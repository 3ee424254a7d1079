"""Runs of `tombola train`, `prune` and `compare`, read back."""

from __future__ import annotations

from pathlib import Path

from tombola.errors import RunFolderError, TombolaError
from tombola.reports.tables import Table
from tombola.runs.configs import load_config
from tombola.runs.folder import RunFolder
from tombola.runs.rows import read_rows
from tombola.studies.single.compare import UNIT
from tombola.studies.single.comparison import Comparison, summarise
from tombola.studies.single.comparison_report import lead as lead_of_comparison
from tombola.studies.single.config import CompareConfig
from tombola.studies.single.report import lead
from tombola.studies.single.result import Result, read_result

STUDIES = ("train", "prune", "compare")


def study_of(root: Path) -> str:
    """Which study made a run folder; RunFolderError when it is none."""
    return str(RunFolder(root).read_manifest()["must_match"].get("study"))


def open_single(root: Path) -> Result | Comparison:
    """A finished run of one of these studies; RunFolderError while it is not finished."""
    folder = RunFolder(root)
    if study_of(root) == "compare":
        config = load_config(folder.config, CompareConfig)
        rows = read_rows(folder.rows, UNIT)
        if len(rows) < config.replicates * (1 + len(config.ways())):
            raise RunFolderError(f"{root}: not finished; the command that began it goes on")
        return summarise(root, config, rows)
    result = read_result(folder)
    if result is None:
        raise RunFolderError(f"{root}: not finished; the command that began it goes on")
    return result


def runs_table(out: Path) -> Table | None:
    """One line for every such run below `out`; None where there is none."""
    rows = []
    for manifest in sorted(path for study in STUDIES for path in out.glob(f"{study}-*/manifest.json")):
        try:
            run = open_single(manifest.parent)
            said = lead_of_comparison(run) if isinstance(run, Comparison) else lead(run.stages)
        except TombolaError as error:
            said = str(error).partition(": ")[2] or str(error)
        rows.append((manifest.parent.name, said))
    return Table(("Run", "What came of it"), rows) if rows else None
