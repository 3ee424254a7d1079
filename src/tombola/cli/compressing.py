"""The command that searches for the smallest model within an allowed loss: compress."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.errors import errors
from tombola.cli.exporting import fraction
from tombola.cli.options import (
    Criterion,
    Data,
    DataDir,
    Debug,
    Device,
    Distill,
    DistillWeight,
    Factory,
    FineTune,
    Json,
    LearningRate,
    MaxDrop,
    ModelArgument,
    Out,
    Protect,
    Quiet,
    Seed,
    SkipBad,
    Temperature,
    Weights,
    Workers,
    distillation_keys,
    fine_tuning_keys,
)
from tombola.cli.running import run_or_plan
from tombola.cli.single import parent_keys


def compress(
    model: ModelArgument,
    target: Annotated[
        str,
        typer.Option(
            help="What is to be small, and its most: params, bytes, flops, latency or memory; a fraction of the "
            "model's or an amount. E.g. params=0.2, bytes=50k, latency=0.5, latency=2ms."
        ),
    ],
    max_drop: MaxDrop = "1%",
    data: Data = None,
    structure: Annotated[
        list[str] | None,
        typer.Option(
            help="dense (as it is), weight (for sparse kernels) or unit (really removed). Repeatable; default all."
        ),
    ] = None,
    distribution: Annotated[
        list[str] | None,
        typer.Option(help="global (layers compete) or uniform (each loses as much). Repeatable; default both."),
    ] = None,
    criterion: Criterion = "magnitude",
    finetune: FineTune = "2ep",
    lr: LearningRate = 1e-3,
    batch_size: Annotated[int, typer.Option(min=1, help="Of fine-tuning and scoring.")] = 64,
    distill: Distill = False,
    temperature: Temperature = None,
    distill_weight: DistillWeight = None,
    refinements: Annotated[
        int, typer.Option(min=0, help="Sparsities tried between the last good one of a path and the first that is not.")
    ] = 2,
    batch: Annotated[int, typer.Option(min=1, help="Examples in a call whose latency and memory are measured.")] = 1,
    protect: Protect = None,
    weights: Weights = None,
    factory: Factory = None,
    seed: Seed = 0,
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

        content = {
            **parent_keys(model, weights, factory, data, skip_bad),
            "seed": seed,
            "target": target,
            "max_drop": fraction(max_drop, "--max-drop"),
            "criterion": criterion,
            "fine_tuning": fine_tuning_keys(finetune, lr, optimizer="adam", schedule="cosine", batch_size=batch_size),
            "distillation": distillation_keys(distill, temperature, distill_weight),
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
