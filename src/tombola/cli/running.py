"""How a command runs a study, or says what it would run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tombola.cli.console import give, terminal
from tombola.cli.options import default_workers

if TYPE_CHECKING:
    from tombola.runs.configs import Config


def run_or_plan(
    name: str,
    config: Config,
    out: Path,
    data_dir: Path | None,
    *,
    device: str | None = None,
    workers: int | None = 1,
    results: Path | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    as_json: bool = False,
) -> None:
    """Runs, continues or shows the study called `name`; with `dry_run` shows its plan.

    `quiet` leaves progress and notes out, `as_json` prints what a program reads. `device` takes the place of those in
    the config. No `workers`: one per core, or one on an accelerator.
    """
    from tombola.studies.base.life import plan_output, plan_study, run_study, study_of
    from tombola.studies.base.opened import run_output
    from tombola.studies.base.study import Call
    from tombola.studies.base.watching import watching
    from tombola.studies.registered import study_named
    from tombola.training.device import on_device

    kind, config = study_named(name), on_device(config, device)
    call: dict[str, Any] = {"workers": workers or default_workers(config), "results": results, "data_dir": data_dir}
    with watching(terminal(err=True), quiet=quiet) as watcher:
        asked = Call(out, **call, watcher=watcher)
        if dry_run:
            watcher.say("reading data and timing a few iterations ...")
            plan = plan_study(kind, config, asked)
        else:
            result = run_study(kind, config, asked)
    if dry_run:
        give(as_json, lambda: plan_output(study_of(kind, config, asked), plan), plan.show)
    else:
        give(as_json, lambda: run_output(study_of(kind, config, asked), result), lambda to: kind.show(to, result))
