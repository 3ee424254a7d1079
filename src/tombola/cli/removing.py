"""The command that makes a network really smaller: remove."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.errors import errors
from tombola.cli.options import (
    Criterion,
    Data,
    DataDir,
    Debug,
    Distill,
    DistillWeight,
    DryRun,
    Factory,
    FineTune,
    Json,
    LearningRate,
    ModelArgument,
    Protect,
    Quiet,
    ScoreBatches,
    Seed,
    Temperature,
    Weights,
    distillation_keys,
    fine_tuning_keys,
)
from tombola.cli.running import run_or_plan
from tombola.cli.single import parent_keys


def remove(
    model: ModelArgument,
    sparsity: Annotated[
        float | None,
        typer.Option(help="Fraction of the units to remove by scores; without it the folder's masks say which."),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(help="Whole layers to bypass: how many (those of least influence go), or NAME,NAME."),
    ] = None,
    criterion: Criterion = "magnitude",
    ranking: Annotated[
        str, typer.Option(help="group: each group of coupled layers loses as much; global: all units compete.")
    ] = "group",
    round_to: Annotated[int, typer.Option(min=1, help="What stays of a group is a multiple of this number.")] = 1,
    protect: Protect = None,
    score_batches: ScoreBatches = 16,
    finetune: FineTune = "0it",
    lr: LearningRate = 1e-3,
    distill: Distill = False,
    temperature: Temperature = None,
    distill_weight: DistillWeight = None,
    out: Annotated[Path | None, typer.Option(help="The smaller model's folder; default one below runs/.")] = None,
    data: Data = None,
    weights: Weights = None,
    factory: Factory = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """**Remove** neurons, filters, channels and heads for good: a smaller network, on every engine faster.

    Of a model pruned with `--structure filter` or `neuron` it removes what the masks leave without effect, and the
    outputs stay as they were. With `--sparsity` it scores units of all coupled layers and removes the lowest; then
    fine-tune with `--finetune`, with `--distill` from the parent as well. With `--layers` residual blocks and other
    layers that give as much as they take go whole. Outputs are compared with those of the masked network before
    anything is written. The folder can be trained on, pruned and exported as any other. The same command again
    continues or shows it.

    Example: `tombola remove runs/child --out runs/small`
    """
    with errors(debug, runs=True):
        from tombola.runs.configs import validate
        from tombola.studies.single.config import RemoveConfig
        from tombola.studies.single.of_parent import default_folder

        content = {
            **parent_keys(model, weights, factory, data),
            "seed": seed,
            "fine_tuning": fine_tuning_keys(finetune, lr, optimizer="adam"),
            "distillation": distillation_keys(distill, temperature, distill_weight),
            "removal": {
                "sparsity": sparsity,
                "layers": layers,
                "criterion": criterion,
                "ranking": ranking,
                "round_to": round_to,
                "protect": protect or [],
                "score_batches": score_batches,
            },
        }
        wanted = validate(content, RemoveConfig, "tombola remove")
        folder = default_folder(wanted) if out is None else out
        run_or_plan("remove", wanted, folder, data_dir, dry_run=dry_run, quiet=quiet, as_json=json)
