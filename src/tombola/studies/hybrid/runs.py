"""Hybrid runs of a folder as a table, and a run's page made anew."""

from __future__ import annotations

from pathlib import Path

from tombola.errors import TombolaError
from tombola.reports.tables import Table
from tombola.runs.atomic import write_text
from tombola.runs.folder import writing
from tombola.runs.inventory import findings, refuse, rewriting
from tombola.studies.hybrid.answers import answers_of
from tombola.studies.hybrid.report import report_page
from tombola.studies.hybrid.result import open_hybrid

STUDY = "hybrid"


def report_run(root: Path) -> Path:
    """Makes `report.html` of a run anew from its rows and those of its lotteries; returns its path."""
    result = open_hybrid(root)
    with writing(result.folder), rewriting(result.folder, result.folder.report):
        write_text(result.folder.report, report_page(result))
    return result.folder.report


def runs_table(out: Path) -> Table | None:
    """One line for every hybrid run below `out`; None where there is none."""
    rows = []
    for manifest in sorted(out.glob(f"{STUDY}-*/manifest.json")):
        try:
            result = open_hybrid(manifest.parent)
            refuse(result.folder, findings(result.folder, quick=True))
        except TombolaError as error:
            rows.append((manifest.parent.name, "unreadable or not finished", str(error)))
            continue
        done, asked = len({row["replicate"] for row in result.rows}), result.config.lotteries()["cnn"].replicates
        contest = answers_of(result)[1]
        rows.append((manifest.parent.name, f"{done} of {asked} replicates", contest.lead))
    return Table(("Run", "State", "Do tickets match or beat dense networks?"), rows) if rows else None
