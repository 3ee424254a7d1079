"""The configs that Tombola brings: the command that lists and prints them, and how the other commands read one."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from tombola.cli.console import give, say
from tombola.cli.errors import errors
from tombola.cli.options import Debug, Json
from tombola.errors import ConfigError
from tombola.runs.shipped import Shipped, config_path, shipped

if TYPE_CHECKING:
    from tombola.runs.configs import Config

C = TypeVar("C", bound="Config")

COMMANDS = {"lottery": "imp", "train": "train", "compare": "compare", "hybrid": "hybrid", "stress": "stress"}
"""Which command runs the config of a study, in the order of `tombola configs`."""
SUFFIXES = (".yaml", ".yml")


def _completed(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Names for the shell's completion, of the command that is being typed."""
    command = context.info_name
    fitting = [c for c in shipped().values() if command in (COMMANDS[c.study], "configs")]
    return [(c.name, c.does) for c in fitting if c.name.startswith(incomplete)]


def config_argument(example: str) -> Any:
    """The argument of a command that reads a config."""
    return typer.Argument(
        help=f"A config: one that `tombola configs` lists, such as {example}, or a YAML file of your own.",
        autocompletion=_completed,
    )


def configs(
    name: Annotated[
        str | None, typer.Argument(help="One of the list: print it, to be edited.", autocompletion=_completed)
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the **configs** that Tombola brings, or print one to edit.

    Example: `tombola configs digits > my.yaml`
    """
    with errors(debug):
        if name is not None and not json:
            say(config_path(name).read_text(encoding="utf-8").removesuffix("\n"))
            return
        from tombola.studies.base.output import Numbers, output

        if name is not None:
            from tombola.runs.configs import read_content

            path = config_path(name)
            said = output("config", Numbers((), read_content(path)), name=name, paths={"config": path})
            give(json, lambda: said, lambda console: None)
            return
        from tombola.reports.tables import Table
        from tombola.reports.terminal import drawn

        rows = [(COMMANDS[c.study], c.name, c.does, c.takes) for c in sorted(shipped().values(), key=_order)]
        table = Table(("tombola", "CONFIG", "What it does", "About how long"), rows)
        listed = Numbers.of(table, ("command", "name", "description", "takes"))
        give(json, lambda: output("configs", listed), lambda console: console.print(drawn(table, left=4)))
        if not json:
            say("Run one by its name:  tombola imp digits")
            say("Or edit it before:    tombola configs digits > my.yaml; tombola imp my.yaml")


def read_config(asked: str, kind: type[C], overrides: Sequence[str]) -> C:
    """The config `asked`, by name or as a file; ConfigError that names the right command where it is another one's."""
    from tombola.runs.configs import load_config, read_content

    path = config_path(asked)
    study, wanted = read_content(path).get("study"), kind.model_fields["study"].default
    if isinstance(study, str) and study != wanted and study in COMMANDS:
        raise ConfigError(f"{asked}: a config of another command; run it with: tombola {COMMANDS[study]} {asked}")
    return load_config(path, kind, overrides, asked)


def refuse_configs(*asked: str | Path) -> None:
    """ConfigError with the command that runs it, where a config is given in the place of a run or a model."""
    from tombola.runs.configs import read_content

    for given in map(str, asked):
        study, path = None, Path(given)
        with contextlib.suppress(ConfigError, OSError):  # no config of ours: the command itself says what it wants
            if not path.is_dir() and (path.suffix in SUFFIXES or path.name == given):
                study = read_content(config_path(given)).get("study")
        if isinstance(study, str) and study in COMMANDS:
            raise ConfigError(f"{given}: a config; run it with: tombola {COMMANDS[study]} {given}")


def _order(config: Shipped) -> tuple[int, bool, str]:
    """By command; those behind a published page come last."""
    return list(COMMANDS).index(config.study), config.name.startswith("speed-"), config.name
