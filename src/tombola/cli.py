"""The command line. Each command is a few lines that call a study; torch is loaded by the command that needs it."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from tombola.errors import ConfigError, TombolaError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Find winning lottery tickets in neural networks, and prove that they won.\n\n"
    "Start with `tombola imp configs/imp_digits.yaml`.",
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder with one folder per data set; default $TOMBOLA_DATA, else the user's cache."),
]

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. training.length=300it. Repeatable."),
]
RewindMode = Annotated[
    str | None, typer.Option(help="One of the run's modes of rewinding, e.g. step:500it; default its first.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes of one thread each; default one per core.")]
Engine = Annotated[
    str | None,
    typer.Option(
        help="auto, dense or sparse: compute kept weights alone where that is faster, never, always. Default auto."
    ),
]
RunArgument = Annotated[Path, typer.Argument(help="A run folder of `tombola imp`.")]


@app.callback()
def tombola() -> None:
    """Keeps `tombola COMMAND` the form of every call."""


@app.command()
def imp(
    config: Annotated[Path, typer.Argument(help="A YAML config, such as configs/imp_digits.yaml.")],
    set_: SetOption = None,
    out: Annotated[Path, typer.Option(help="Folder that holds the run folders.")] = Path("runs"),
    results: Annotated[Path | None, typer.Option(help="Copy the result files to this folder too.")] = None,
    replicates: Annotated[
        int | None, typer.Option(help="Number of replicates; a larger one extends a finished run.")
    ] = None,
    engine: Engine = None,
    workers: Workers = None,
    data_dir: DataDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show rounds, trainings and the estimated time; run nothing.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Find a winning ticket by **iterative magnitude pruning**, with controls, and judge it.

    Trains, prunes and rewinds round by round; trains the controls of every round; repeats it all in
    replicates; ends with a table, each round's cost, the measured latency of dense and ticket, a verdict and
    `report.html`. The same command again continues a run that was stopped, or shows a finished one at once.

    Example: `tombola imp configs/imp_digits.yaml --set training.length=300it --replicates 3`
    """
    with _errors(debug):
        from tombola.runs.configs import load_config
        from tombola.studies.lottery.config import LotteryConfig
        from tombola.studies.lottery.study import run_study
        from tombola.studies.lottery.terminal import show_result, watching

        overrides = [*(set_ or []), *_override("replicates", replicates), *_override("training.engine", engine)]
        study = load_config(config, LotteryConfig, overrides)
        console = _console()
        if dry_run:
            from tombola.studies.lottery.forecast import forecast
            from tombola.studies.lottery.terminal import show_forecast

            show_forecast(console, forecast(study, workers or _cores(), data_dir), study)
            return
        with watching(console) as watcher:
            result = run_study(
                study,
                out,
                workers=workers or _cores(),
                results=results,
                data_dir=data_dir,
                watcher=watcher,
            )
        show_result(console, result)
        if result.config.replicates > study.replicates:
            typer.echo(
                f"Asked for {study.replicates} replicates; the run has {result.config.replicates}, all are shown."
            )


def _override(key: str, value: object) -> list[str]:
    """An option as `--set` would have it; nothing where it was not given."""
    return [] if value is None else [f"{key}={value}"]


@app.command()
def extract(
    run: RunArgument,
    density: Annotated[float, typer.Option(help="Share of weights kept, e.g. 0.21: the round nearest to it.")],
    out: Annotated[Path, typer.Option(help="The model folder to write; it must not hold a model yet.")],
    reinit: Annotated[
        int | None, typer.Option(min=0, metavar="SEED", help="Fresh weights from this seed instead of W_0.")
    ] = None,
    replicate: Annotated[int, typer.Option(min=0, help="Whose ticket.")] = 0,
    rewind: RewindMode = None,
    debug: Debug = False,
) -> None:
    """Write a ticket as a **model folder**: spec.json, weights.safetensors, masks.safetensors.

    The weights are those that the ticket restarts from (W_0 under its mask), ready to be trained again.

    Example: `tombola extract runs/lottery-digits-1a2b3c4d --density 0.07 --out ticket`
    """
    with _errors(debug):
        from tombola.studies.lottery.extract import extract as write_ticket

        planned = write_ticket(run, density, out, reinit=reinit, replicate=replicate, mode=rewind)
        typer.echo(
            f"{out}: round {planned.index}, {planned.kept:,} of {planned.total:,} weights ({planned.density:.1%})"
        )


@app.command()
def stability(
    run: RunArgument,
    round_: Annotated[int, typer.Option("--round", help="The round whose ticket is trained; 0 is the dense network.")],
    copies: Annotated[int, typer.Option(help="Trainings under different data orders, two or more.")] = 2,
    rewind: RewindMode = None,
    workers: Workers = None,
    data_dir: DataDir = None,
    debug: Debug = False,
) -> None:
    """Does the **order of the data** decide where a ticket ends? Instability along the straight line.

    Trains copies of every replicate's ticket under different data orders and measures the error at 30 points
    between them (Frankle et al. 2020). The result goes into the run's report.

    Example: `tombola stability runs/lottery-digits-1a2b3c4d --round 5`
    """
    with _errors(debug):
        from tombola.studies.lottery.compare import report_run
        from tombola.studies.lottery.stability import run_stability
        from tombola.studies.lottery.terminal import stability_progress

        result = run_stability(
            run,
            round_,
            mode=rewind,
            copies=copies,
            workers=workers or _cores(),
            data_dir=data_dir,
            on_event=stability_progress(_console()),
        )
        typer.echo(f"{result.sentence}\nReport: {report_run(run)}")


@app.command()
def show(run: Annotated[Path, typer.Argument(help="A run folder.")], debug: Debug = False) -> None:
    """Show a run's **table and outcome** again; of a lottery study as far as its replicates are complete."""
    with _errors(debug):
        from tombola.studies.single.runs import STUDIES, study_of

        if study_of(run) in STUDIES:
            from tombola.studies.single.runs import open_single
            from tombola.studies.single.terminal import show_run

            show_run(_console(), open_single(run))
        else:
            from tombola.studies.lottery.compare import result_of
            from tombola.studies.lottery.terminal import show_result

            show_result(_console(), result_of(run))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of `tombola imp`.")],
    out: Annotated[
        Path | None, typer.Option(help="The comparison page to write; default comparison.html for several runs.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Make a run's **report.html** anew, or **compare several runs** on one page.

    Example: `tombola report runs/lottery-a-* runs/lottery-b-* --out a-and-b.html`
    """
    with _errors(debug):
        from tombola.studies.lottery.compare import compare_runs, report_run

        alone = len(runs) == 1 and out is None
        typer.echo(f"Report: {report_run(runs[0]) if alone else compare_runs(runs, out or Path('comparison.html'))}")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A YAML config, such as configs/train_lenet5.yaml.")],
    set_: SetOption = None,
    out: Annotated[Path, typer.Option(help="Folder that holds the run folders.")] = Path("runs"),
    engine: Engine = None,
    data_dir: DataDir = None,
    debug: Debug = False,
) -> None:
    """Train a **parent**: a model folder with spec, weights and metrics, ready for `tombola prune`.

    The weights are those of the lowest validation loss. `evolution` in the config makes it sparse on the way
    (`method: gradual`) or from the start (`set`, `rigl`). The same command again continues or shows it.

    Example: `tombola train configs/train_lenet5.yaml --set training.length=2ep`
    """
    with _errors(debug):
        from tombola.runs.configs import load_config
        from tombola.studies.single.config import TrainConfig
        from tombola.studies.single.terminal import following, show
        from tombola.studies.single.train import train as train_parent

        console = _console()
        wanted = load_config(config, TrainConfig, [*(set_ or []), *_override("training.engine", engine)])
        with following(console) as follower:
            result = train_parent(wanted, out, data_dir, follower)
        show(console, result)


@app.command()
def prune(
    model: Annotated[str, typer.Argument(help="A zoo name, a model folder, or package.module:function.")],
    sparsity: Annotated[float | None, typer.Option(help="Share of units to remove, e.g. 0.9.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Data set, or its keys as YAML: '{name: npz, folder: x}'. Default: the folder's own."),
    ] = None,
    criterion: Annotated[str, typer.Option(help="What a weight is worth; see `tombola list criteria`.")] = "magnitude",
    structure: Annotated[str, typer.Option(help="What is removed whole: weight, neuron, filter, 2:4 ...")] = "weight",
    budget: Annotated[str, typer.Option(help="How it spreads over layers: global, uniform, erk, rates:0.2")] = "global",
    schedule: Annotated[str, typer.Option(help="oneshot, iterative:N, linear:N or cubic:N.")] = "oneshot",
    protect: Annotated[
        list[str] | None, typer.Option(help="A layer to leave alone, name or pattern. Repeatable.")
    ] = None,
    min_keep: Annotated[int, typer.Option(min=1, help="Units that every layer keeps.")] = 1,
    score_batches: Annotated[int, typer.Option(min=1, help="Batches that criteria with need of data look at.")] = 16,
    finetune: Annotated[
        str, typer.Option(help="How long to fine-tune, e.g. 2ep or 500it; 0it for not at all.")
    ] = "2ep",
    lr: Annotated[float, typer.Option(help="Learning rate of the fine-tuning.")] = 1e-4,
    optimizer: Annotated[str, typer.Option(help="sgd, adam or adamw.")] = "adam",
    batch_size: Annotated[int, typer.Option(min=1, help="Of fine-tuning and scoring.")] = 64,
    engine: Engine = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of a zoo or factory model: .safetensors, or .pt read as weights only.")
    ] = None,
    factory: Annotated[
        str | None, typer.Option(help="package.module:function that makes the model of a folder, if it is your own.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The child's model folder; default one below runs/.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Makes split, chance of criteria and order of the examples.")] = 0,
    data_dir: DataDir = None,
    debug: Debug = False,
) -> None:
    """**Prune** a model and fine-tune what is left; the parent stays as it is, to the bit.

    Prints before, pruned and fine-tuned side by side: accuracy, F1, parameters, FLOPs, bytes, measured latency,
    sparsity per layer. The child is a model folder with a record of its parent. The same command again continues or
    shows it.

    Example: `tombola prune runs/train-lenet5-1a2b3c4d --sparsity 0.9 --criterion taylor --structure filter`
    """
    with _errors(debug):
        from tombola.runs.configs import parse_value, validate
        from tombola.studies.single.config import PruneConfig
        from tombola.studies.single.prune import prune_parent
        from tombola.studies.single.terminal import following, show

        chosen = None if data is None else parse_value(data, "--data")
        length = {"length": finetune, "evaluate_every": "1ep", "optimizer": optimizer, "learning_rate": lr}
        length |= {} if engine is None else {"engine": engine}
        none = finetune in ("0", "0it", "0ep")
        if none and engine is not None:
            raise ConfigError("--engine belongs to the fine-tuning; leave it out with --finetune 0it")
        content = {
            "model": model,
            "weights": weights,
            "factory": factory,
            "data": {"name": chosen} if isinstance(chosen, str) else chosen,
            "seed": seed,
            "batch_size": batch_size,
            "fine_tuning": None if none else {**length, "batch_size": batch_size},
            "pruning": {
                "sparsity": sparsity,
                "criterion": criterion,
                "structure": structure,
                "budget": budget,
                "schedule": schedule,
                "protect": protect or [],
                "min_keep": min_keep,
                "score_batches": score_batches,
            },
        }
        console = _console()
        with following(console) as follower:
            result = prune_parent(validate(content, PruneConfig, "tombola prune"), out, data_dir, follower)
        show(console, result)


@app.command()
def compare(
    config: Annotated[Path, typer.Argument(help="A YAML config, such as configs/compare_lenet5.yaml.")],
    set_: SetOption = None,
    out: Annotated[Path, typer.Option(help="Folder that holds the run folders.")] = Path("runs"),
    workers: Workers = None,
    data_dir: DataDir = None,
    debug: Debug = False,
) -> None:
    """Compare **ways to prune**: criteria × structures × budgets × sparsities, on a fresh parent per replicate.

    Ends with a table with confidence intervals, a sentence per place of the grid on which way loses least, and
    `report.html`. The same command again continues or shows it.

    Example: `tombola compare configs/compare_lenet5.yaml --set 'criteria=[magnitude, taylor]'`
    """
    with _errors(debug):
        from tombola.runs.configs import load_config
        from tombola.studies.single.compare import compare as compare_ways
        from tombola.studies.single.config import CompareConfig
        from tombola.studies.single.terminal import counting, show_comparison

        console = _console()
        wanted = load_config(config, CompareConfig, set_ or [])
        with counting(console) as watcher:
            comparison = compare_ways(wanted, out, workers or _cores(), data_dir, watcher)
        show_comparison(console, comparison)


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(help="runs, criteria, structures, budgets, schedules, models or data.")
    ] = "runs",
    out: Annotated[Path, typer.Option(help="Folder that holds the run folders.")] = Path("runs"),
    debug: Debug = False,
) -> None:
    """List the **runs** in a folder with their verdict, or what there is to choose from.

    Example: `tombola list criteria`
    """
    with _errors(debug):
        from tombola.reports.terminal import drawn

        if what == "runs":
            from tombola.studies.lottery.terminal import runs_table as lottery_runs
            from tombola.studies.single.runs import runs_table as single_runs

            tables = [table for table in (lottery_runs(out), single_runs(out)) if table is not None]
            for table in tables:
                _console().print(drawn(table, left=3))
            if not tables:
                typer.echo(f"no runs in {out}; start one with: tombola imp configs/imp_digits.yaml")
        else:
            from tombola.studies.single.listing import listing

            table = listing(what)
            _console().print(drawn(table, left=len(table.columns)))


def main() -> None:
    """The entry point of the `tombola` command."""
    app()


@contextmanager
def _errors(debug: bool) -> Iterator[None]:
    """One line per error: exit 2 for what has to change, 1 for a failed run, 130 after Ctrl-C (143 after TERM)."""
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    showing = warnings.showwarning
    warnings.showwarning = lambda message, *_, **__: typer.echo(f"warning: {message}", err=True)
    try:
        yield
    except KeyboardInterrupt:
        _stopped(received)
    except TombolaError as error:
        if debug:
            raise
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(error.exit_code) from None
    except Exception as error:
        if received:  # an import that was interrupted fails in ways of its own
            _stopped(received)
        if debug:
            raise
        typer.echo(f"internal error: {type(error).__name__}: {error}; please report it with --debug", err=True)
        raise typer.Exit(1) from None
    finally:
        warnings.showwarning = showing
        for number, handler in before.items():
            signal.signal(number, handler)


def _stopped(received: list[int]) -> NoReturn:
    typer.echo("stopped; finished work is kept, the same command continues", err=True)
    raise typer.Exit(128 + (received[0] if received else signal.SIGINT)) from None


def _console() -> Console:
    """The terminal; a file or pipe gets lines wide enough for a table."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=140)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
