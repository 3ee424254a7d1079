"""The commands around one lottery run: find a ticket, take it out, measure its stability, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.configs import config_argument, read_config, refuse_configs
from tombola.cli.console import give, tell, terminal
from tombola.cli.errors import errors
from tombola.cli.options import (
    DataDir,
    Debug,
    Device,
    Engine,
    Factory,
    Json,
    Out,
    Quiet,
    RewindMode,
    RunArgument,
    SetOption,
    SkipBad,
    Workers,
    default_workers,
    override,
    quoted,
    skipping,
)
from tombola.cli.running import run_or_plan
from tombola.errors import in_line


def imp(
    config: Annotated[str, config_argument("digits")],
    set_: SetOption = None,
    out: Out = Path("runs"),
    results: Annotated[Path | None, typer.Option(help="Copy the result files to this folder too.")] = None,
    replicates: Annotated[
        int | None, typer.Option(help="Number of replicates; a larger one extends a finished run.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="A .keras file whose network is pruned: it brings model and first weights.")
    ] = None,
    engine: Engine = None,
    device: Device = None,
    workers: Workers = None,
    skip_bad: SkipBad = False,
    data_dir: DataDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show rounds, trainings and the estimated time; run nothing.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Find a winning ticket by **iterative magnitude pruning**, with controls, and judge it.

    Trains, prunes and rewinds round by round; trains the controls of every round; repeats it all in
    replicates; ends with a table, each round's cost, the measured latency of dense and ticket, a verdict and
    `report.html`. The same command again continues a run that was stopped, or shows a finished one at once.

    Example: `tombola imp digits --set training.length=300it --replicates 3`
    """
    with errors(debug, runs=True):
        from tombola.studies.lottery.config import LotteryConfig

        overrides = [
            *override("replicates", replicates),
            *override("training.engine", engine),
            *override("start", quoted(start)),
            *skipping(skip_bad),
        ]
        wanted = read_config(config, LotteryConfig, [*(set_ or []), *overrides])
        run_or_plan(
            "lottery",
            wanted,
            out,
            data_dir,
            device=device,
            workers=workers,
            results=results,
            dry_run=dry_run,
            quiet=quiet,
            as_json=json,
        )


def extract(
    run: RunArgument,
    density: Annotated[float, typer.Option(help="Fraction of weights kept, e.g. 0.21: the round nearest to it.")],
    out: Annotated[Path, typer.Option(help="The model folder to write; it must not hold a model yet.")],
    reinit: Annotated[
        int | None, typer.Option(min=0, metavar="SEED", help="Fresh weights from this seed instead of W_0.")
    ] = None,
    replicate: Annotated[int, typer.Option(min=0, help="Whose ticket.")] = 0,
    rewind: RewindMode = None,
    factory: Factory = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a ticket as a **model folder**: spec.json, weights.safetensors, masks.safetensors.

    The weights are those that the ticket restarts from (W_0 under its mask), ready to be trained again.

    Example: `tombola extract runs/lottery-digits-1a2b3c4d --density 0.07 --out ticket`
    """
    with errors(debug):
        from tombola.studies.base.output import Numbers, output
        from tombola.studies.lottery.extract import extract as write_ticket

        refuse_configs(run)
        planned = write_ticket(run, density, out, reinit=reinit, replicate=replicate, mode=rewind, factory=factory)
        said = f"round {planned.index}, {planned.kept:,} of {planned.total:,} weights ({planned.density:.1%})"
        give(
            json,
            lambda: output("ticket", Numbers([planned]), outcome=said, folder=str(out.resolve())),
            lambda console: tell(console, f"{out}: {said}"),
        )


def stability(
    run: RunArgument,
    round_: Annotated[int, typer.Option("--round", help="The round whose ticket is trained; 0 is the dense network.")],
    copies: Annotated[int, typer.Option(help="Trainings under different data orders, two or more.")] = 2,
    rewind: RewindMode = None,
    factory: Factory = None,
    code: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="package.module:function of your own that the recipe names. Repeatable."),
    ] = None,
    device: Device = None,
    workers: Workers = None,
    data_dir: DataDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the trainings and the estimated time; run nothing.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Does the **order of the data** decide where a ticket ends?

    Trains copies of every replicate's ticket under different data orders and measures the error at 30 points
    between them (Frankle et al. 2020). The result goes into the run's report.

    Example: `tombola stability runs/lottery-digits-1a2b3c4d --round 5`
    """
    with errors(debug, runs=True):
        from tombola.studies.base.life import plan_output
        from tombola.studies.base.opened import remake_report
        from tombola.studies.base.output import Numbers, output
        from tombola.studies.base.watching import watching
        from tombola.studies.lottery.stability import run_stability
        from tombola.studies.lottery.stability_plan import plan_stability
        from tombola.studies.lottery.study import open_lottery
        from tombola.training.device import on_device

        refuse_configs(run)
        opened = open_lottery(run)
        workers = workers or default_workers(on_device(opened.config, device))
        if dry_run:
            plan = plan_stability(run, round_, mode=rewind, copies=copies, workers=workers)
            give(json, lambda: plan_output(opened, plan), plan.show)
            return
        with watching(terminal(err=True), quiet=quiet) as watcher:
            result = run_stability(
                run,
                round_,
                mode=rewind,
                copies=copies,
                device=device,
                workers=workers,
                data_dir=data_dir,
                factory=factory,
                code=code or (),
                on_event=watcher.progress,
            )
        path = remake_report(opened)
        give(
            json,
            lambda: output(
                "stability",
                Numbers([result], None, {"path": "percent", "ends": "percent", "dense": "percent"}),
                name=opened.called,
                folder=str(run.resolve()),
                outcome=result.sentence,
                paths={"report": path},
            ),
            lambda console: tell(console, f"{result.sentence}\nReport: {in_line(path)}"),
        )


def report(
    runs: Annotated[list[Path], typer.Argument(help="A run folder, or several of `tombola imp`.")],
    out: Annotated[
        Path | None, typer.Option(help="The comparison page to write; default comparison.html for several runs.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a run's **report.html** anew, or **compare several runs** on one page.

    Example: `tombola report runs/lottery-a-* runs/lottery-b-* --out a-and-b.html`
    """
    with errors(debug):
        from tombola.studies.base.opened import remake_report
        from tombola.studies.base.output import output
        from tombola.studies.lottery.compare import compare_runs
        from tombola.studies.registered import open_run

        refuse_configs(*runs)
        if len(runs) > 1 or out is not None:
            path = compare_runs(runs, out or Path("comparison.html"))
        else:
            path = remake_report(open_run(runs[0]))
        give(
            json,
            lambda: output("report", paths={"report": path}),
            lambda console: tell(console, f"Report: {in_line(path)}"),
        )
