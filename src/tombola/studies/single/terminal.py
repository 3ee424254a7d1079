"""One parent or child in the terminal: progress, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID

from tombola.reports.terminal import LINE_SECONDS, drawn, progress_bars
from tombola.runs.atomic import read_json
from tombola.studies.single.child import OnProgress
from tombola.studies.single.report import lead
from tombola.studies.single.result import METRICS, Result
from tombola.studies.single.tables import STAGES_NOTE, check_line, layers_table, stages_table
from tombola.training.fit import Evaluation


@contextmanager
def following(console: Console) -> Iterator[OnProgress]:
    """A follower that draws a bar on a terminal, or prints a line now and then into a file or pipe."""
    if console.is_terminal:
        with progress_bars(console) as bars:
            yield _Bar(bars)
    else:
        yield _Lines(console)


class _Bar:
    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, evaluation: Evaluation, total: int) -> None:
        if stage not in self.tasks:
            self.tasks[stage] = self.bars.add_task(stage, total=total)
        said = f"{stage}, validation {evaluation.accuracy:.2%}"
        self.bars.update(self.tasks[stage], completed=evaluation.iteration, description=said)


class _Lines:
    def __init__(self, console: Console) -> None:
        self.console = console
        self.printed = time.monotonic()

    def __call__(self, stage: str, evaluation: Evaluation, total: int) -> None:
        if time.monotonic() - self.printed >= LINE_SECONDS:
            self.printed = time.monotonic()
            said = f"{stage}: iteration {evaluation.iteration} of {total}, validation {evaluation.accuracy:.2%}"
            self.console.print(said, highlight=False)


def show(console: Console, result: Result) -> None:
    """The tables, the checks, the outcome in one sentence and where the model lies."""
    console.print(drawn(stages_table(result.stages), left=1))
    console.print(drawn(layers_table(result.layers)))
    console.print(STAGES_NOTE, highlight=False)
    if line := check_line(read_json(result.folder / METRICS)["checks"]):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"\n[bold]{escape(lead(result.stages))}[/bold]", highlight=False, soft_wrap=True)
    console.print(f"Model folder: {result.folder}", highlight=False, soft_wrap=True, markup=False)
