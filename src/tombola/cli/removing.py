"""The command that makes a network really smaller: remove."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.console import give, terminal
from tombola.cli.errors import errors
from tombola.cli.exporting import Data, Factory, Weights, asked
from tombola.cli.options import DataDir, Debug, Json, Quiet


def remove(
    model: Annotated[str, typer.Argument(help="A model folder, a zoo name, or package.module:function.")],
    sparsity: Annotated[
        float | None,
        typer.Option(help="Fraction of the units to remove by scores; without it the folder's masks say which."),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(help="Whole layers to bypass: how many (those of least influence go), or NAME,NAME."),
    ] = None,
    criterion: Annotated[str, typer.Option(help="What a weight is worth; see `tombola list criteria`.")] = "magnitude",
    ranking: Annotated[
        str, typer.Option(help="group: each group of coupled layers loses as much; global: all units compete.")
    ] = "group",
    round_to: Annotated[int, typer.Option(min=1, help="What stays of a group is a multiple of this number.")] = 1,
    protect: Annotated[
        list[str] | None, typer.Option(help="A layer to leave alone, name or pattern. Repeatable.")
    ] = None,
    score_batches: Annotated[int, typer.Option(min=1, help="Batches for criteria that need data.")] = 16,
    finetune: Annotated[str, typer.Option(help="How long to fine-tune, e.g. 2ep; 0it for not at all.")] = "0it",
    lr: Annotated[float, typer.Option(help="Learning rate of the fine-tuning.")] = 1e-3,
    out: Annotated[Path | None, typer.Option(help="The smaller model's folder; default one below runs/.")] = None,
    data: Data = None,
    weights: Weights = None,
    factory: Factory = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the split, of random criteria and of the order of examples.")
    ] = 0,
    data_dir: DataDir = None,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """**Remove** neurons, filters, channels and heads for good: a smaller network, on every engine faster.

    Of a model pruned with `--structure filter` or `neuron` it removes what the masks leave without effect, and the
    outputs stay as they were. With `--sparsity` it scores units of all coupled layers and removes the lowest; then
    fine-tune with `--finetune`. With `--layers` residual blocks and other layers that give as much as they take go
    whole. Outputs are compared with those of the masked network before anything is written. The folder can be trained
    on, pruned and exported as any other.

    Example: `tombola remove runs/child --out runs/small`
    """
    with errors(debug):
        from dataclasses import replace

        from tombola.runs.configs import validate
        from tombola.studies import removing
        from tombola.studies.base.output import output
        from tombola.studies.base.watching import watching
        from tombola.training import Recipe

        wanted = removing.Asked(sparsity, layers, criterion, ranking, round_to, tuple(protect or ()), score_batches)
        none = finetune in ("0", "0it", "0ep")
        content = {"length": finetune, "evaluate_every": "1ep", "optimizer": "adam", "learning_rate": lr}
        recipe = None if none else validate(content, Recipe, "--finetune")
        given = replace(asked(model, data, weights, factory), seed=seed, fine_tuning=recipe)
        folder = removing.default_folder(model) if out is None else out
        with watching(terminal(err=True), quiet=quiet) as watcher:
            outcome = removing.remove(given, wanted, folder, data_dir, watcher)
        give(
            json,
            lambda: output(
                "removal", removing.numbers(outcome), folder=str(folder.resolve()), outcome=outcome.sentence
            ),
            lambda console: removing.show(console, outcome),
        )
