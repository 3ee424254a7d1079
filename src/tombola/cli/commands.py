"""The app and its commands, in the order of `--help`. Torch is loaded by the command that needs it, not here."""

from __future__ import annotations

import typer

from tombola.cli.console import show_what_can_be_shown
from tombola.cli.hybrid import hybrid
from tombola.cli.lottery import extract, imp, report, stability
from tombola.cli.runs import list_, show
from tombola.cli.single import compare, prune, train

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Find winning lottery tickets in neural networks, and prove that they won.\n\n"
    "Start with `tombola imp configs/imp_digits.yaml`.",
)


@app.callback()
def tombola() -> None:
    """Keeps `tombola COMMAND` the form of every call."""
    show_what_can_be_shown()


for command in (imp, extract, stability, show, report, train, prune, compare, hybrid):
    app.command()(command)
app.command("list")(list_)
