"""Arguments and options that several commands share. One that a single command has stands in its signature."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tombola.runs.configs import Config

Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes; warnings and errors stay.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, for programs.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder with one folder per data set; default $TOMBOLA_DATA, else the user's cache."),
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad",
        help="Leave out images that cannot be read, and say which. Default: they are an error.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. training.length=300it. Repeatable."),
]
Out = Annotated[Path, typer.Option(help="Folder that holds the run folders.")]
RewindMode = Annotated[
    str | None, typer.Option(help="One of the run's modes of rewinding, e.g. step:500it; default its first.")
]
Factory = Annotated[str | None, typer.Option(help="package.module:function that makes the network, if it is your own.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes of one thread each; default one per core, and one alone on a GPU."),
]
Engine = Annotated[
    str | None,
    typer.Option(
        help="Compute kept weights only: auto (where that is faster), dense (never) or sparse (always). Default auto."
    ),
]
Device = Annotated[
    str | None,
    typer.Option(help="auto, cpu, cuda or mps: where to train. Default: the config's, else cpu."),
]
RunArgument = Annotated[Path, typer.Argument(help="A run folder of `tombola imp`.")]


def override(key: str, value: object) -> list[str]:
    """An option as `--set` would have it; nothing where it was not given."""
    return [] if value is None else [f"{key}={value}"]


def quoted(path: Path | None) -> str | None:
    """A path as a value of `override`, whatever signs are in it."""
    return None if path is None else json.dumps(str(path))


def skipping(skip_bad: bool) -> list[str]:
    """`--skip-bad` as `--set` would have it; the config decides where it was not given."""
    return override("data.skip_bad", "true" if skip_bad else None)


def default_workers(config: Config) -> int:
    """How many processes a resolved config gets where nobody says: an accelerator is not shared unasked."""
    from tombola.training.device import devices_of

    return 1 if devices_of(config) else cores()


def cores() -> int:
    """Cores that this process may use: the default of `--workers`."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
