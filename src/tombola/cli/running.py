"""How a command runs a study, or says what it would run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tombola.cli.console import terminal
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
) -> None:
    """Runs, continues or shows the study called `name`; with `dry_run` shows its plan.

    `device` takes the place of those in the config. No `workers`: one per core, or one on an accelerator.
    """
    from tombola.studies.base.life import plan_study, run_study
    from tombola.studies.base.study import Call
    from tombola.studies.base.watching import watching
    from tombola.studies.registered import study_named
    from tombola.training.device import on_device

    shown, told, kind, config = terminal(), terminal(err=True), study_named(name), on_device(config, device)
    call: dict[str, Any] = {"workers": workers or default_workers(config), "results": results, "data_dir": data_dir}
    if dry_run:
        told.print("reading data and timing a few iterations ...", highlight=False)
        with watching(told) as watcher:
            plan = plan_study(kind, config, Call(out, **call, watcher=watcher))
        plan.show(shown)
        return
    with watching(told) as watcher:
        result = run_study(kind, config, Call(out, **call, watcher=watcher))
    kind.show(shown, result)
