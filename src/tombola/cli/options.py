"""Arguments and options that several commands share. One that a single command has stands in its signature."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tombola.errors import ConfigError

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
Data = Annotated[
    str | None,
    typer.Option(help="Data set, or its keys as YAML: '{name: npz, folder: x}'. Default: the folder's own."),
]
Weights = Annotated[
    Path | None,
    typer.Option(help="Weights of a zoo or factory model: .safetensors, or .pt read as weights only."),
]
ModelArgument = Annotated[str, typer.Argument(help="A model folder, a zoo name, or package.module:function.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the split, of random criteria and of the order of examples.")]
Criterion = Annotated[str, typer.Option(help="What a weight is worth; see `tombola list criteria`.")]
Structure = Annotated[str, typer.Option(help="What is removed whole: weight, neuron, filter, 2:4 ...")]
Protect = Annotated[list[str] | None, typer.Option(help="A layer to leave alone, name or pattern. Repeatable.")]
ScoreBatches = Annotated[int, typer.Option(min=1, help="Batches for criteria that need data.")]
FineTune = Annotated[str, typer.Option(help="How long to fine-tune, e.g. 2ep or 500it; 0it for not at all.")]
LearningRate = Annotated[float, typer.Option(help="Learning rate of the fine-tuning.")]
Distill = Annotated[bool, typer.Option("--distill", help="Fine-tuning learns from the parent's answers as well.")]
Temperature = Annotated[float | None, typer.Option(help="Of --distill: softens both answers. Default 4.")]
DistillWeight = Annotated[float | None, typer.Option(help="Of --distill: the parent's weight, up to 1. Default 0.5.")]
MaxDrop = Annotated[str, typer.Option(help="The most accuracy that may be lost: 1% is one point, and so is 0.01.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the trainings and the estimated time; run nothing.")]
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


def fine_tuning_keys(length: str, learning_rate: float, **others: object) -> dict[str, Any] | None:
    """The keys of a fine-tuning of `length`, such as 2ep; None of one that is none."""
    if length in ("0", "0it", "0ep"):
        return None
    return {"length": length, "evaluate_every": "1ep", "learning_rate": learning_rate, **others}


def distillation_keys(distill: bool, temperature: float | None, weight: float | None) -> dict[str, float] | None:
    """The keys of a distillation, or None without one; ConfigError for options that belong to it."""
    chosen = {"temperature": temperature, "weight": weight}
    given = {key: value for key, value in chosen.items() if value is not None}
    if given and not distill:
        raise ConfigError("--temperature and --distill-weight belong to --distill: give it, too")
    return given if distill else None


def default_workers(config: Config) -> int:
    """How many processes a resolved config gets where nobody says: an accelerator is not shared unasked."""
    from tombola.training.device import devices_of

    return 1 if devices_of(config) else cores()


def cores() -> int:
    """Cores that this process may use: the default of `--workers`."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
