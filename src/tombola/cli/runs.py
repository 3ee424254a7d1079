"""The commands that look at what is there: a run of any study, all runs of a folder, what there is to choose from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.console import say, terminal
from tombola.cli.errors import errors
from tombola.cli.options import Debug, Out


def show(run: Annotated[Path, typer.Argument(help="A run folder.")], debug: Debug = False) -> None:
    """Show a run's **table and outcome** again; of a lottery or hybrid study, of the replicates that are complete."""
    with errors(debug):
        from tombola.runs.folder import RunFolder
        from tombola.runs.inventory import findings, refuse
        from tombola.studies.registered import STUDIES, open_run, study_of

        folder = RunFolder(run)
        if study_of(run) in STUDIES:
            from tombola.studies.base.opened import read_result, refuse_changes

            study = open_run(run)
            result = read_result(study)
            refuse_changes(study)
            study.show(terminal(), result)
        elif study_of(run) == "hybrid":
            from tombola.studies.hybrid import terminal as hybrid_terminal
            from tombola.studies.hybrid.result import open_hybrid

            hybrid_terminal.show_result(terminal(), open_hybrid(run))
        else:
            from tombola.studies.lottery.compare import result_of
            from tombola.studies.lottery.terminal import show_result

            show_result(terminal(), result_of(run))
        refuse(folder, findings(folder))


def list_(
    what: Annotated[
        str, typer.Argument(help="runs, criteria, structures, distributions, schedules, models or data.")
    ] = "runs",
    out: Out = Path("runs"),
    debug: Debug = False,
) -> None:
    """List the **runs** in a folder with their verdict, or what there is to choose from.

    Example: `tombola list criteria`
    """
    with errors(debug):
        from tombola.reports.terminal import drawn

        if what == "runs":
            from tombola.studies.hybrid.runs import runs_table as hybrid_runs
            from tombola.studies.lottery.terminal import runs_table as lottery_runs
            from tombola.studies.registered import list_runs as single_runs

            found = (lottery_runs(out), hybrid_runs(out), single_runs(out))
            tables = [table for table in found if table is not None]
            for table in tables:
                terminal().print(drawn(table, left=3))
            if not tables:
                say(f"no runs in {out}; start one with: tombola imp configs/imp_digits.yaml")
        else:
            from tombola.cli.listing import listing

            table = listing(what)
            terminal().print(drawn(table, left=len(table.columns)))
