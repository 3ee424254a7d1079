"""One parent or child in the terminal: progress, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID

from tombola.reports.terminal import LINE_SECONDS, drawn, progress_bars
from tombola.runs.rows import Row
from tombola.studies.single import child
from tombola.studies.single.child import OnProgress, preparing
from tombola.studies.single.compare import Watcher
from tombola.studies.single.comparison import Comparison, percent
from tombola.studies.single.comparison_report import NOTE, comparison_table, remarks
from tombola.studies.single.comparison_report import lead as lead_of_comparison
from tombola.studies.single.report import lead
from tombola.studies.single.result import Result, read_checks
from tombola.studies.single.tables import check_line, layers_note, layers_table, stages_note, stages_table


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

    def __call__(self, now: child.Progress) -> None:
        if now.stage not in self.tasks:
            self.tasks[now.stage] = self.bars.add_task(now.stage, total=now.total)
        self.bars.update(self.tasks[now.stage], completed=now.done, description=now.stage + _accuracy(now))


class _Lines:
    def __init__(self, console: Console) -> None:
        self.console = console
        self.printed = time.monotonic()

    def __call__(self, now: child.Progress) -> None:
        if time.monotonic() - self.printed >= LINE_SECONDS:
            self.printed = time.monotonic()
            self.console.print(f"{now.stage}: {now.done} of {now.total}{_accuracy(now)}", highlight=False)


def _accuracy(now: child.Progress) -> str:
    return "" if now.accuracy is None else f", validation {now.accuracy:.2%}"


@contextmanager
def counting(console: Console) -> Iterator[Watcher]:
    """A watcher that draws one bar over all trainings, or prints a line now and then."""
    if console.is_terminal:
        with progress_bars(console) as bars:
            yield _CountingBar(bars).watcher()
    else:
        yield _CountingLines(console).watcher()


class _CountingBar:
    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.task = bars.add_task("ways to prune", total=None)

    def watcher(self) -> Watcher:
        return Watcher(
            lambda units, finished: self.bars.update(self.task, total=units, completed=finished),
            lambda row: self.bars.update(self.task, advance=1, description=_said(row)),
            preparing(_Bar(self.bars)),
        )


class _CountingLines:
    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = self.printed = time.monotonic()
        self.units = self.finished = self.earlier = 0

    def watcher(self) -> Watcher:
        return Watcher(self.begin, self.unit, preparing(_Lines(self.console)))

    def begin(self, units: int, finished: int) -> None:
        self.units, self.finished, self.earlier = units, finished, finished
        self.console.print(f"{units} parents and children to make, {finished} finished earlier", highlight=False)

    def unit(self, row: Row) -> None:
        self.finished += 1
        now = time.monotonic()
        if now - self.printed >= LINE_SECONDS:
            self.printed = now
            left = (now - self.began) / (self.finished - self.earlier) * (self.units - self.finished)
            line = f"{self.finished} of {self.units}, about {left:.0f} s left; {_said(row)}"
            self.console.print(line, highlight=False, soft_wrap=True)


def _said(row: Row) -> str:
    if row["kind"] == "stage":
        return f"parent {row['replicate']}"
    outcome = "refused" if row["refused"] else f"test {row['test_accuracy']:.2%}"
    return f"{row['criterion']}, {row['structure']}, {row['distribution']}, {percent(row['sparsity'])}: {outcome}"


def show_run(console: Console, run: Result | Comparison) -> None:
    """What a finished run came to."""
    if isinstance(run, Comparison):
        show_comparison(console, run)
    else:
        show(console, run)


def show_comparison(console: Console, comparison: Comparison) -> None:
    """The table, what each place says, and where the page lies."""
    console.print(drawn(comparison_table(comparison.places), left=4), soft_wrap=False)
    console.print(NOTE + "\n", highlight=False)
    for line in [*(place.sentence for place in comparison.places), *remarks(comparison)]:
        console.print(escape(line), highlight=False, soft_wrap=True)
    console.print(f"\n[bold]{escape(lead_of_comparison(comparison))}[/bold]", highlight=False, soft_wrap=True)
    console.print(f"Report: {comparison.folder / 'report.html'}", highlight=False, soft_wrap=True, markup=False)


def show(console: Console, result: Result) -> None:
    """The tables, the checks, the outcome in one sentence and where the model lies."""
    console.print(drawn(stages_table(result.stages, result.latencies), left=1))
    console.print(drawn(layers_table(result.layers)))
    if note := layers_note(result.layers):
        console.print(escape(note), highlight=False, soft_wrap=True)
    console.print(stages_note(result.stages, result.latencies), highlight=False, markup=False)
    if line := check_line(read_checks(result.folder)):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"\n[bold]{escape(lead(result.stages))}[/bold]", highlight=False, soft_wrap=True)
    console.print(f"Model folder: {result.folder}", highlight=False, soft_wrap=True, markup=False)
