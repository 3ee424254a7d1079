"""The app and its commands, in the order of `--help`. Torch is loaded by the command that needs it, not here."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from tombola import __version__
from tombola.cli.compressing import compress
from tombola.cli.configs import configs
from tombola.cli.console import say, show_what_can_be_shown
from tombola.cli.exporting import bench, export
from tombola.cli.hybrid import hybrid
from tombola.cli.lottery import extract, imp, report, stability
from tombola.cli.removing import remove
from tombola.cli.runs import list_, show
from tombola.cli.sensitivity import sensitivity
from tombola.cli.single import compare, prune, train
from tombola.cli.stressing import stress
from tombola.cli.tickets import diff, info, pack, unpack


class _Plain:
    """Help in which a flag is a flag: it takes no value, so that there is no type to be shown."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class _Command(_Plain, TyperCommand):
    """A command of ours."""


class _Group(_Plain, TyperGroup):
    """The commands."""


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find winning lottery tickets in neural networks, and prove that they won.\n\n"
    "Start with `tombola imp digits`.",
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"tombola {__version__}")
        raise typer.Exit


@app.callback()
def tombola(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Keeps `tombola COMMAND` the form of every call."""
    show_what_can_be_shown()


def _with_hyphens(name: str) -> str:
    """An option of two words, written with an underscore or with a hyphen."""
    return name.replace("_", "-")


for command in (
    imp,
    extract,
    stability,
    show,
    report,
    train,
    prune,
    compare,
    sensitivity,
    remove,
    compress,
    hybrid,
    export,
    bench,
    pack,
    unpack,
    info,
    diff,
):
    app.command(cls=_Command)(command)
app.command(cls=_Command, context_settings={"token_normalize_func": _with_hyphens})(stress)
app.command("list", cls=_Command)(list_)
app.command(cls=_Command)(configs)
