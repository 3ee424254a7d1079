"""The commands around one parent: train it, prune it, compare methods to prune it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tombola.cli.configs import config_argument, read_config, refuse_configs
from tombola.cli.errors import errors
from tombola.cli.options import (
    Criterion,
    Data,
    DataDir,
    Debug,
    Device,
    Distill,
    DistillWeight,
    DryRun,
    Engine,
    Factory,
    FineTune,
    Json,
    LearningRate,
    ModelArgument,
    Out,
    Protect,
    Quiet,
    ScoreBatches,
    Seed,
    SetOption,
    SkipBad,
    Structure,
    Temperature,
    Weights,
    Workers,
    distillation_keys,
    fine_tuning_keys,
    override,
    skipping,
)
from tombola.cli.running import run_or_plan
from tombola.errors import ConfigError


def train(
    config: Annotated[str, config_argument("lenet5")],
    set_: SetOption = None,
    out: Out = Path("runs"),
    engine: Engine = None,
    device: Device = None,
    skip_bad: SkipBad = False,
    data_dir: DataDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the iterations and the estimated time; run nothing.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a **parent**: a model folder with spec, weights and metrics, ready for `tombola prune`.

    The weights are those of the lowest validation loss. `evolution` in the config makes it sparse on the way
    (`method: gradual`) or from the start (`set`, `rigl`). The same command again continues or shows it.

    Example: `tombola train lenet5 --set training.length=2ep`
    """
    with errors(debug, runs=True):
        from tombola.studies.single.config import TrainConfig

        overrides = [*(set_ or []), *override("training.engine", engine), *skipping(skip_bad)]
        run_or_plan(
            "train",
            read_config(config, TrainConfig, overrides),
            out,
            data_dir,
            device=device,
            dry_run=dry_run,
            quiet=quiet,
            as_json=json,
        )


def prune(
    model: ModelArgument,
    sparsity: Annotated[float | None, typer.Option(help="Fraction of units to remove, e.g. 0.9.")] = None,
    data: Data = None,
    criterion: Criterion = "magnitude",
    structure: Structure = "weight",
    distribution: Annotated[
        str, typer.Option(help="How the sparsity spreads over layers: global, uniform, erk, per-output, rates:0.2")
    ] = "global",
    schedule: Annotated[str, typer.Option(help="oneshot, iterative:N, linear:N or cubic:N.")] = "oneshot",
    protect: Protect = None,
    min_keep: Annotated[int, typer.Option(min=1, help="Units that every layer keeps.")] = 1,
    score_batches: ScoreBatches = 16,
    finetune: FineTune = "2ep",
    lr: LearningRate = 1e-4,
    distill: Distill = False,
    temperature: Temperature = None,
    distill_weight: DistillWeight = None,
    reestimate: Annotated[
        int,
        typer.Option(min=0, help="Training examples that batch norms take new statistics from; 0: they keep theirs."),
    ] = 0,
    optimizer: Annotated[str, typer.Option(help="sgd, adam, adamw, or package.module:function of your own.")] = "adam",
    batch_size: Annotated[int, typer.Option(min=1, help="Of fine-tuning and scoring.")] = 64,
    engine: Engine = None,
    device: Device = None,
    weights: Weights = None,
    factory: Factory = None,
    out: Annotated[Path | None, typer.Option(help="The child's model folder; default one below runs/.")] = None,
    seed: Seed = 0,
    skip_bad: SkipBad = False,
    data_dir: DataDir = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """**Prune** a model and fine-tune what is left; the parent stays as it is, to the bit.

    Prints before, pruned and fine-tuned side by side: accuracy, F1, parameters, FLOPs, bytes, measured latency,
    sparsity per layer. The child is a model folder with a record of its parent. The same command again continues or
    shows it.

    Example: `tombola prune runs/train-lenet5-1a2b3c4d --sparsity 0.9 --criterion taylor --structure filter`
    """
    with errors(debug, runs=True):
        from tombola.runs.configs import validate
        from tombola.studies.single.config import PruneConfig
        from tombola.studies.single.of_parent import default_folder

        others = {"optimizer": optimizer, "batch_size": batch_size} | ({} if engine is None else {"engine": engine})
        fine_tuning = fine_tuning_keys(finetune, lr, **others)
        for option, value in (("--engine", engine), ("--device", device)):
            if fine_tuning is None and value is not None:
                raise ConfigError(f"{option} belongs to the fine-tuning; leave it out with --finetune 0it")
        content = {
            **parent_keys(model, weights, factory, data, skip_bad),
            "seed": seed,
            "batch_size": batch_size,
            "fine_tuning": fine_tuning,
            "distillation": distillation_keys(distill, temperature, distill_weight),
            "reestimate": reestimate,
            "pruning": {
                "sparsity": sparsity,
                "criterion": criterion,
                "structure": structure,
                "distribution": distribution,
                "schedule": schedule,
                "protect": protect or [],
                "min_keep": min_keep,
                "score_batches": score_batches,
            },
        }
        wanted = validate(content, PruneConfig, "tombola prune")
        run_or_plan(
            "prune",
            wanted,
            default_folder(wanted) if out is None else out,
            data_dir,
            device=device,
            dry_run=dry_run,
            quiet=quiet,
            as_json=json,
        )


def parent_keys(
    model: str, weights: Path | None, factory: str | None, data: str | None, skip_bad: bool = False
) -> dict[str, Any]:
    """What a config says of a parent; ConfigError for the name of a config."""
    from tombola.models import architectures

    if model not in architectures:  # one may have the name of a config
        refuse_configs(model)
    return {"model": model, "weights": weights, "factory": factory, "data": data_keys(data, skip_bad)}


def data_keys(data: str | None, skip_bad: bool) -> Any:
    """`--data` as the keys of a config: of a name alone, or of keys as YAML; None leaves it to the model's folder.

    What is no keys at all is returned as it is; validation says so.
    """
    from tombola.runs.configs import parse_value

    chosen = None if data is None else parse_value(data, "--data")
    keys = {"name": chosen} if isinstance(chosen, str) else chosen
    if skip_bad and keys is None:
        raise ConfigError("--skip-bad: say of which data with --data, for example --data '{name: folder, folder: x}'")
    return keys | {"skip_bad": True} if skip_bad and isinstance(keys, dict) else keys


def compare(
    config: Annotated[str, config_argument("criteria")],
    set_: SetOption = None,
    out: Out = Path("runs"),
    device: Device = None,
    workers: Workers = None,
    skip_bad: SkipBad = False,
    data_dir: DataDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show parents, children and the estimated time; run nothing.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare **pruning methods**: criteria × structures × distributions × sparsities, on a fresh parent per replicate.

    Ends with a table with confidence intervals, a sentence per setting of the grid on which method loses least, and
    `report.html`. The same command again continues or shows it.

    Example: `tombola compare criteria --set 'criteria=[magnitude, taylor]'`
    """
    with errors(debug, runs=True):
        from tombola.studies.single.config import CompareConfig

        wanted = read_config(config, CompareConfig, [*(set_ or []), *skipping(skip_bad)])
        run_or_plan(
            "compare", wanted, out, data_dir, device=device, workers=workers, dry_run=dry_run, quiet=quiet, as_json=json
        )
