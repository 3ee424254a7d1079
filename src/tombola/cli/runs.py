"""The commands that look at what is there: a run of any study, all runs of a folder, what there is to choose from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.configs import refuse_configs
from tombola.cli.console import give, say
from tombola.cli.errors import errors
from tombola.cli.options import Debug, Json, Out


def show(run: Annotated[Path, typer.Argument(help="A run folder.")], json: Json = False, debug: Debug = False) -> None:
    """Show a run's **table and outcome** again, of its complete replicates."""
    with errors(debug):
        from tombola.studies.base.opened import read_result, refuse_changes, run_output
        from tombola.studies.registered import open_run

        refuse_configs(run)
        study = open_run(run)
        result = read_result(study)
        refuse_changes(study)
        give(json, lambda: run_output(study, result), lambda console: study.show(console, result))


def list_(
    what: Annotated[
        str, typer.Argument(help="runs, criteria, structures, distributions, schedules, controls, models or data.")
    ] = "runs",
    out: Out = Path("runs"),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the **runs** in a folder with their verdict, or what there is to choose from.

    Example: `tombola list criteria`
    """
    with errors(debug):
        from tombola.reports.terminal import drawn
        from tombola.studies.base.output import Numbers, output

        if what == "runs":
            from tombola.studies.registered import list_runs, runs_table

            runs = list_runs(out)
            if not runs:
                say(f"no runs in {out}; start one with: tombola imp digits", err=True)
            if runs or json:
                drawing = drawn(runs_table(runs), left=5)
                give(json, lambda: output("runs", Numbers(runs)), lambda console: console.print(drawing))
        else:
            from tombola.cli.listing import KEYS, listing

            table = listing(what)
            drawing = drawn(table, left=len(table.columns))
            give(json, lambda: output(what, Numbers.of(table, KEYS[what])), lambda console: console.print(drawing))
