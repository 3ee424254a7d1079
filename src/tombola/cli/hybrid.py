"""The command of the hybrid study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.configs import config_argument, read_config
from tombola.cli.errors import errors
from tombola.cli.options import DataDir, Debug, Device, Json, Out, Quiet, SetOption, SkipBad, Workers, override
from tombola.cli.running import run_or_plan


def hybrid(
    config: Annotated[str, config_argument("apple")],
    set_: SetOption = None,
    out: Out = Path("runs"),
    results: Annotated[Path | None, typer.Option(help="Copy the result files to this folder too.")] = None,
    replicates: Annotated[
        int | None, typer.Option(help="Number of replicates, of the lotteries too; a larger one extends a run.")
    ] = None,
    device: Device = None,
    workers: Workers = None,
    skip_bad: SkipBad = False,
    data_dir: DataDir = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the lotteries' rounds, the estimated time and the forests; run nothing."),
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """**CNN features and random forests**: exits of a network and of its ticket, early exits, four questions answered.

    Runs its lotteries first (they are runs of `tombola imp`; finished ones are not run again), then learns a forest
    on the features of every exit, beside forests on plain pixels and PCA; gates an early exit by the forest's
    confidence; measures accuracy, FLOPs, comparisons, bytes and latency; and answers what lottery tickets bring. The
    same command again continues or shows it.

    Example: `tombola hybrid apple --replicates 2`
    """
    with errors(debug, runs=True):
        from tombola.studies.hybrid.config import HybridConfig

        wanted = read_config(config, HybridConfig, [*(set_ or []), *override("replicates", replicates)])
        wanted = wanted.skipping_bad() if skip_bad else wanted
        run_or_plan(
            "hybrid",
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
