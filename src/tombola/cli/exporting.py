"""The commands that give a network away and measure it beside others: export, bench."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tombola.cli.console import give, terminal
from tombola.cli.errors import errors
from tombola.cli.options import Data, DataDir, Debug, Factory, Json, MaxDrop, Quiet, Weights
from tombola.cli.single import parent_keys
from tombola.errors import ConfigError

if TYPE_CHECKING:
    from tombola.studies.given_model import AskedModel

GivenModel = Annotated[
    str,
    typer.Argument(help="A run of `tombola imp`, a model folder, a zoo name, or package.module:function."),
]


def export(
    model: GivenModel,
    to: Annotated[
        str | None, typer.Option(help="onnx, pt2 (torch.export) or keras; default what --out ends with, else onnx.")
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Weights and activations in 8 bits, calibrated on training data; onnx only.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The file to write; default NAME.onnx in this folder.")] = None,
    data: Data = None,
    max_drop: MaxDrop = "1%",
    weights: Weights = None,
    factory: Factory = None,
    data_dir: DataDir = None,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a network as **one file for others**: ONNX, torch.export's pt2, Keras; float32 or int8.

    The file takes pixels from 0 to 1 in batches of any size. It is written only when its outputs are torch's, its
    removed weights are 0 and its test accuracy fell by no more than `--max-drop`; accuracy, bytes and latency are
    printed beside torch's. Of a run of `tombola imp` it is the trained ticket.

    Example: `tombola export runs/child --to onnx --int8 --max-drop 0.5%`
    """
    with errors(debug):
        from tombola.compression.export.exporting import export as write
        from tombola.compression.export.formats import format_of, formats
        from tombola.studies import exporting
        from tombola.studies.base.output import output
        from tombola.studies.base.watching import watching
        from tombola.studies.given_model import open_given

        form = formats.get(to or "onnx") if out is None else format_of(out, to)
        allowed = fraction(max_drop, "--max-drop")
        with watching(terminal(err=True), quiet=quiet) as watcher:
            given = open_given(asked(model, data, weights, factory), data_dir)
            path = Path(exporting.default_name(given.name, form, int8)) if out is None else out
            written = write(
                given.network,
                path,
                given.data,
                masks=given.masks,
                int8=int8,
                max_drop=allowed,
                on_step=lambda said: watcher.say(f"{said} ..."),
            )
        said = exporting.outcome(written)
        give(
            json,
            lambda: output(
                "export", exporting.numbers(written), name=given.name, outcome=said, paths={"file": written.path}
            ),
            lambda console: exporting.show(console, written),
        )


def bench(
    models: Annotated[list[str], typer.Argument(help="Runs of `tombola imp`, or model folders. One or more.")],
    skip: Annotated[
        list[str] | None, typer.Option(metavar="ENGINE", help="An engine to leave out, e.g. torch.compile. Repeatable.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of each engine.")] = 1,
    data: Data = None,
    max_drop: MaxDrop = "1%",
    factory: Factory = None,
    data_dir: DataDir = None,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a network on **every engine**: torch, torch.compile, ONNX Runtime, OpenVINO, our sparse kernels.

    Latency (median and 95th percentile, batch 1 and 64), throughput, bytes, peak memory and accuracy, in float32,
    bfloat16 and int8. All take turns; what computes something else than torch is called wrong and not timed, and what
    is not installed or not possible here has a reason. torch.compile may take minutes: `--skip torch.compile`. It takes
    classifiers alone: of other tasks there is no one tensor in, and no accuracy, that all engines could be held to.

    Example: `tombola bench runs/child runs/train-lenet5-1a2b3c4d --skip torch.compile`
    """
    with errors(debug):
        from tombola.compression.bench.benching import bench as measure
        from tombola.studies import benching
        from tombola.studies.base.output import output
        from tombola.studies.base.watching import Progress, watching
        from tombola.studies.given_model import open_given

        engines = benching.engines_without(skip or [])
        allowed = fraction(max_drop, "--max-drop")
        wanted = [asked(model, data, None, factory) for model in models]
        with watching(terminal(err=True), quiet=quiet) as watcher:
            benches = []
            for given in [open_given(one, data_dir) for one in wanted]:
                found = measure(
                    given.name,
                    given.network,
                    given.masks,
                    given.data,
                    engines=engines,
                    threads=threads,
                    max_drop=allowed,
                    on_step=lambda said, done, total, name=given.name: watcher.progress(  # type: ignore[misc]
                        Progress(name, done, total, said)
                    ),
                )
                benches.append(found)
        give(
            json,
            lambda: output("bench", benching.numbers(benches), outcome=" ".join(map(benching.outcome, benches))),
            lambda console: benching.show_all(console, benches),
        )


def asked(model: str, data: str | None, weights: Path | None, factory: str | None) -> AskedModel:
    """What a command says of its model, checked as far as it can be without opening it."""
    from tombola.data import DataConfig
    from tombola.runs.configs import validate
    from tombola.studies.given_model import AskedModel

    keys = parent_keys(model, weights, factory, data)
    if keys["data"] is not None:
        keys["data"] = validate(keys["data"], DataConfig, "--data")
    return AskedModel(**keys)


def fraction(text: str, option: str) -> float:
    """`1%` or `0.01` as 0.01; ConfigError, which names the option, for anything else."""
    number, scale = (text[:-1], 100) if text.endswith("%") else (text, 1)
    try:
        value = float(number) / scale
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ConfigError(f"{option} {text}: a fraction of accuracy, such as 1% or 0.01")
    return value
