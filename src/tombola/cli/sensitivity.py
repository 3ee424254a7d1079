"""The command that looks at layers one by one: sensitivity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.console import give, terminal
from tombola.cli.errors import errors
from tombola.cli.exporting import asked, fraction
from tombola.cli.options import (
    Criterion,
    Data,
    DataDir,
    Debug,
    Factory,
    Json,
    MaxDrop,
    ModelArgument,
    Quiet,
    Structure,
    Weights,
)


def sensitivity(
    model: ModelArgument,
    criterion: Criterion = "magnitude",
    structure: Structure = "weight",
    sparsity: Annotated[
        list[float] | None,
        typer.Option(help="Fraction that the layer loses. Repeatable. Default: six from 0.3 to 0.95."),
    ] = None,
    max_drop: MaxDrop = "1%",
    out: Annotated[Path | None, typer.Option(help="A new folder for a page, a figure and a table.")] = None,
    data: Data = None,
    weights: Weights = None,
    factory: Factory = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of batches that criteria look at.")] = 0,
    data_dir: DataDir = None,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Prune **one layer at a time** and see what accuracy it costs; nothing is trained or written over.

    Scores are of the validation part. The last line is a distribution for `tombola prune`, which prunes each layer as
    far as it may alone within `--max-drop`.

    Example: `tombola sensitivity runs/train-lenet5-1a2b3c4d --structure filter --out runs/sensitivity`
    """
    with errors(debug):
        from tombola.compression.sensitivity import SPARSITIES
        from tombola.compression.sensitivity import sensitivity as measure
        from tombola.studies import layer_sensitivity
        from tombola.studies.base.output import output
        from tombola.studies.base.watching import watching
        from tombola.studies.single.parents import open_parent

        if out is not None:
            layer_sensitivity.check_folder(out)
        allowed = fraction(max_drop, "--max-drop")
        with watching(terminal(err=True), quiet=quiet) as watcher:
            given = open_parent(asked(model, data, weights, factory), data_dir)
            found = measure(
                given.model,
                given.data,
                masks=given.masks,
                criterion=criterion,
                structure=structure,
                sparsities=tuple(sparsity or SPARSITIES),
                seed=seed,
                on_point=watcher.counting("pruning one layer at a time"),
            )
        drop = found.measure.scale * allowed
        paths = {} if out is None else layer_sensitivity.write(out, given.name, found, drop)
        give(
            json,
            lambda: output(
                "sensitivity",
                layer_sensitivity.numbers(found, drop),
                name=given.name,
                outcome=layer_sensitivity.sentence(found, drop),
                paths=paths,
            ),
            lambda console: layer_sensitivity.show(console, found, drop),
        )
