"""The command that searches for the smallest model within an allowed loss: compress."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.errors import errors
from tombola.cli.exporting import Data, Factory, Weights, fraction
from tombola.cli.options import DataDir, Debug, Device, Json, Out, Quiet, SkipBad, Workers
from tombola.cli.running import run_or_plan
from tombola.cli.single import data_keys


def compress(
    model: Annotated[str, typer.Argument(help="A model folder, a zoo name, or package.module:function.")],
    target: Annotated[
        str,
        typer.Option(
            help="What is to be small, and its most: params, bytes, flops, latency or memory; a fraction of the "
            "model's or an amount. E.g. params=0.2, bytes=50k, latency=0.5, latency=2ms."
        ),
    ],
    max_drop: Annotated[
        str, typer.Option(help="The most validation accuracy that may be lost: 1% is one point, and so is 0.01.")
    ] = "1%",
    data: Data = None,
    structure: Annotated[
        list[str] | None,
        typer.Option(
            help="weight (single ones, for sparse kernels) or unit (really removed). Repeatable; default both."
        ),
    ] = None,
    distribution: Annotated[
        list[str] | None,
        typer.Option(help="global (layers compete) or uniform (each loses as much). Repeatable; default both."),
    ] = None,
    criterion: Annotated[str, typer.Option(help="What a weight is worth; see `tombola list criteria`.")] = "magnitude",
    finetune: Annotated[
        str, typer.Option(help="How long each candidate is fine-tuned, e.g. 2ep or 500it; 0it for not at all.")
    ] = "2ep",
    lr: Annotated[float, typer.Option(help="Learning rate of the fine-tuning.")] = 1e-3,
    batch_size: Annotated[int, typer.Option(min=1, help="Of fine-tuning and scoring.")] = 64,
    distill: Annotated[
        bool, typer.Option("--distill", help="Fine-tuning learns from the model's own answers as well.")
    ] = False,
    refinements: Annotated[
        int, typer.Option(min=0, help="Sparsities tried between the last good one of a path and the first that is not.")
    ] = 2,
    batch: Annotated[int, typer.Option(min=1, help="Examples in a call whose latency and memory are measured.")] = 1,
    protect: Annotated[
        list[str] | None, typer.Option(help="A layer to leave alone, name or pattern. Repeatable.")
    ] = None,
    weights: Weights = None,
    factory: Factory = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the split, of random criteria, of the examples' order.")
    ] = 0,
    out: Out = Path("runs"),
    device: Device = None,
    workers: Workers = None,
    skip_bad: SkipBad = False,
    data_dir: DataDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the candidates and the estimated time; run nothing.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Search for the **smallest model** that loses at most `--max-drop`, and ship it as one file.

    Structures × distributions are paths along which sparsity grows, each candidate fine-tuned from the one before; all
    are shipped in float32 and in int8. The smallest by the target within the drop on validation is chosen, and looked
    at on test once. Single weights become a ticket file for sparse kernels, removed units ONNX. Ends with a table, a
    Pareto figure, and the files of the front in `models/`. The same command again continues or shows it.

    Example: `tombola compress runs/train-lenet5-1a2b3c4d --target bytes=50k --max-drop 0.5%`
    """
    with errors(debug, runs=True):
        from tombola.runs.configs import validate
        from tombola.studies.compress.config import CompressConfig

        none = finetune in ("0", "0it", "0ep")
        recipe = {
            "length": finetune,
            "evaluate_every": "1ep" if finetune.endswith("ep") else finetune,
            "optimizer": "adam",
            "learning_rate": lr,
            "batch_size": batch_size,
        }
        content = {
            "model": model,
            "weights": weights,
            "factory": factory,
            "data": data_keys(data, skip_bad),
            "seed": seed,
            "target": target,
            "max_drop": fraction(max_drop, "--max-drop"),
            "criterion": criterion,
            "fine_tuning": None if none else recipe,
            "distillation": {} if distill else None,
            "refinements": refinements,
            "protect": protect or [],
            "batch": batch,
            **({"structures": structure} if structure else {}),
            **({"distributions": distribution} if distribution else {}),
        }
        run_or_plan(
            "compress",
            validate(content, CompressConfig, "tombola compress"),
            out,
            data_dir,
            device=device,
            workers=workers,
            dry_run=dry_run,
            quiet=quiet,
            as_json=json,
        )
