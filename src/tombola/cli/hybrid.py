"""The command of the hybrid study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tombola.cli.console import say, terminal
from tombola.cli.errors import errors
from tombola.cli.options import DataDir, Debug, Out, SetOption, SkipBad, Workers, cores, override

if TYPE_CHECKING:
    from tombola.studies.lottery.config import LotteryConfig
    from tombola.studies.lottery.result import Result


def hybrid(
    config: Annotated[Path, typer.Argument(help="A YAML config, such as configs/hybrid_apple.yaml.")],
    set_: SetOption = None,
    out: Out = Path("runs"),
    results: Annotated[Path | None, typer.Option(help="Copy the result files to this folder too.")] = None,
    replicates: Annotated[
        int | None, typer.Option(help="Number of replicates, of the lotteries too; a larger one extends a run.")
    ] = None,
    workers: Workers = None,
    skip_bad: SkipBad = False,
    data_dir: DataDir = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the lotteries' rounds, the estimated time and the forests; run nothing."),
    ] = False,
    debug: Debug = False,
) -> None:
    """**CNN features and random forests**: exits of a network and of its ticket, early exits, four questions answered.

    Runs its lotteries first (they are runs of `tombola imp`; finished ones are not run again), then learns a forest
    on the features of every exit, beside forests on plain pixels and PCA; gates an early exit by the forest's
    confidence; measures accuracy, FLOPs, comparisons, bytes and latency; and answers what lottery tickets bring. The
    same command again continues or shows it.

    Example: `tombola hybrid configs/hybrid_apple.yaml --replicates 2`
    """
    with errors(debug):
        from dataclasses import replace

        from tombola.runs.configs import load_config
        from tombola.studies.hybrid.config import HybridConfig
        from tombola.studies.hybrid.study import run_hybrid
        from tombola.studies.hybrid.terminal import show_result, watching
        from tombola.studies.lottery import terminal as lottery_terminal
        from tombola.studies.lottery.study import run_study

        study = load_config(config, HybridConfig, [*(set_ or []), *override("replicates", replicates)])
        study = study.skipping_bad() if skip_bad else study
        console = terminal()
        console.print("looking at data, networks and earlier runs ...", highlight=False)
        if dry_run:
            from tombola.studies.hybrid.outlook import check_study, look_ahead
            from tombola.studies.hybrid.terminal import show_outlook
            from tombola.studies.lottery.forecast import forecast

            facts = check_study(study, data_dir)
            show_outlook(console, look_ahead(study, facts, out, workers or cores(), data_dir, forecast))
            return

        def run_lottery(role: str, lottery: LotteryConfig) -> Result:
            console.print(f"[bold]{role}[/bold]: the lottery {lottery.name}", highlight=False)
            with lottery_terminal.watching(console) as watcher:
                watcher = replace(watcher, planned=lambda plan: None)  # the line before all lotteries has it
                result = run_study(lottery, out, workers=workers or cores(), data_dir=data_dir, watcher=watcher)
            console.print(result.verdict.sentence, highlight=False, markup=False, soft_wrap=True)
            return result

        with watching(console) as watcher:
            result = run_hybrid(
                study,
                out,
                run_lottery,
                workers=workers or cores(),
                results=results,
                data_dir=data_dir,
                watcher=watcher,
            )
        show_result(console, result)
        asked, shown = (config.lotteries()["cnn"].replicates for config in (study, result.config))
        if shown > asked:
            say(f"Asked for {asked} replicates; the run has {shown}, all are shown.")
