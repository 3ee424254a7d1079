"""The commands around one parent: train it, prune it, compare methods to prune it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tombola.cli.configs import config_argument, read_config, refuse_configs
from tombola.cli.errors import errors
from tombola.cli.options import (
    DataDir,
    Debug,
    Device,
    Engine,
    Json,
    Out,
    Quiet,
    SetOption,
    SkipBad,
    Workers,
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
    model: Annotated[str, typer.Argument(help="A zoo name, a model folder, or package.module:function.")],
    sparsity: Annotated[float | None, typer.Option(help="Fraction of units to remove, e.g. 0.9.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Data set, or its keys as YAML: '{name: npz, folder: x}'. Default: the folder's own."),
    ] = None,
    criterion: Annotated[str, typer.Option(help="What a weight is worth; see `tombola list criteria`.")] = "magnitude",
    structure: Annotated[str, typer.Option(help="What is removed whole: weight, neuron, filter, 2:4 ...")] = "weight",
    distribution: Annotated[
        str, typer.Option(help="How the sparsity spreads over layers: global, uniform, erk, per-output, rates:0.2")
    ] = "global",
    schedule: Annotated[str, typer.Option(help="oneshot, iterative:N, linear:N or cubic:N.")] = "oneshot",
    protect: Annotated[
        list[str] | None, typer.Option(help="A layer to leave alone, name or pattern. Repeatable.")
    ] = None,
    min_keep: Annotated[int, typer.Option(min=1, help="Units that every layer keeps.")] = 1,
    score_batches: Annotated[int, typer.Option(min=1, help="Batches for criteria that need data.")] = 16,
    finetune: Annotated[
        str, typer.Option(help="How long to fine-tune, e.g. 2ep or 500it; 0it for not at all.")
    ] = "2ep",
    lr: Annotated[float, typer.Option(help="Learning rate of the fine-tuning.")] = 1e-4,
    distill: Annotated[
        bool, typer.Option("--distill", help="Fine-tuning learns from the parent's answers as well.")
    ] = False,
    temperature: Annotated[float | None, typer.Option(help="Of --distill: softens both answers. Default 4.")] = None,
    distill_weight: Annotated[
        float | None, typer.Option(help="Of --distill: the parent's weight, up to 1. Default 0.5.")
    ] = None,
    reestimate: Annotated[
        int,
        typer.Option(min=0, help="Training examples that batch norms take new statistics from; 0: they keep theirs."),
    ] = 0,
    optimizer: Annotated[str, typer.Option(help="sgd, adam, adamw, or package.module:function of your own.")] = "adam",
    batch_size: Annotated[int, typer.Option(min=1, help="Of fine-tuning and scoring.")] = 64,
    engine: Engine = None,
    device: Device = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of a zoo or factory model: .safetensors, or .pt read as weights only.")
    ] = None,
    factory: Annotated[
        str | None, typer.Option(help="package.module:function that makes the model of a folder, if it is your own.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The child's model folder; default one below runs/.")] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the split, of random criteria and of the order of examples.")
    ] = 0,
    skip_bad: SkipBad = False,
    data_dir: DataDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the trainings and the estimated time; run nothing.")
    ] = False,
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
        from tombola.models import architectures
        from tombola.runs.configs import validate
        from tombola.studies.single.config import PruneConfig
        from tombola.studies.single.prune import default_folder

        if model not in architectures:  # one may have the name of a config
            refuse_configs(model)
        length = {"length": finetune, "evaluate_every": "1ep", "optimizer": optimizer, "learning_rate": lr}
        length |= {} if engine is None else {"engine": engine}
        none = finetune in ("0", "0it", "0ep")
        for option, value in (("--engine", engine), ("--device", device)):
            if none and value is not None:
                raise ConfigError(f"{option} belongs to the fine-tuning; leave it out with --finetune 0it")
        chosen = {"temperature": temperature, "weight": distill_weight}
        taught = {key: value for key, value in chosen.items() if value is not None}
        if taught and not distill:
            raise ConfigError("--temperature and --distill-weight belong to --distill: give it, too")
        content = {
            "model": model,
            "weights": weights,
            "factory": factory,
            "data": data_keys(data, skip_bad),
            "seed": seed,
            "batch_size": batch_size,
            "fine_tuning": None if none else {**length, "batch_size": batch_size},
            "distillation": taught if distill else None,
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
