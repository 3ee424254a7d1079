"""The commands that look at what is there: a run of any study, all runs of a folder, what there is to choose from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.console import say, terminal
from tombola.cli.errors import errors
from tombola.cli.options import Debug, Out


def show(run: Annotated[Path, typer.Argument(help="A run folder.")], debug: Debug = False) -> None:
    """Show a run's **table and outcome** again, as far as its replicates are complete."""
    with errors(debug):
        from tombola.studies.base.opened import read_result, refuse_changes
        from tombola.studies.registered import open_run

        study = open_run(run)
        result = read_result(study)
        refuse_changes(study)
        study.show(terminal(), result)


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
            from tombola.studies.registered import list_runs

            if runs := list_runs(out):
                terminal().print(drawn(runs, left=3))
            else:
                say(f"no runs in {out}; start one with: tombola imp digits", err=True)
        else:
            from tombola.cli.listing import listing

            table = listing(what)
            terminal().print(drawn(table, left=len(table.columns)))
