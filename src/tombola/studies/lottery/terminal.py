"""A lottery study in the terminal: progress while it runs, the table and the verdict at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID

from tombola.errors import TombolaError
from tombola.reports.tables import Table
from tombola.reports.terminal import LINE_SECONDS, drawn, progress_bars
from tombola.runs.inventory import findings, refuse
from tombola.runs.rows import Row
from tombola.studies.lottery import replicate
from tombola.studies.lottery.artefacts import keras_line
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.forecast import Forecast, estimate_line, lines
from tombola.studies.lottery.metrics import rows_of_mode, summaries_of_mode
from tombola.studies.lottery.result import Result, open_run
from tombola.studies.lottery.study import Watcher
from tombola.studies.lottery.tables import (
    COST_NOTE,
    TABLE_NOTE,
    check_lines,
    cost_line,
    origin_lines,
    results_table,
    rounds_table,
    speed_notes,
    verdict_notes,
)

FIRST_LINE_SECONDS = 2.0
"""Measuring that takes no longer than this says nothing of itself."""


@contextmanager
def watching(console: Console) -> Iterator[Watcher]:
    """A watcher that draws bars on a terminal, or prints a line now and then into a file or pipe."""
    if console.is_terminal:
        with progress_bars(console) as bars:
            yield _BarWatcher(bars).watcher()
    else:
        yield _LineWatcher(console).watcher()


class _BarWatcher:
    """One bar for all trainings, one for each replicate at work."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.whole: TaskID | None = None
        self.replicates: dict[int, TaskID] = {}
        self.trainings: dict[int, tuple[int, str]] = {}

        self.latencies: TaskID | None = None
        self.base: TaskID | None = None

    def watcher(self) -> Watcher:
        return Watcher(self.begin, self.unit, self.progress, self.measuring, self.features, self.planned)

    def planned(self, plan: Forecast) -> None:
        self.bars.console.print(estimate_line([plan]), highlight=False, soft_wrap=True)

    def features(self, done: int, total: int) -> None:
        if self.base is None:
            self.base = self.bars.add_task("features of the frozen base", total=total)
        self.bars.update(self.base, completed=done)

    def begin(self, units: int, finished: int) -> None:
        self.whole = self.bars.add_task("all trainings", total=units, completed=finished)

    def unit(self, row: Row) -> None:
        if self.whole is not None:
            self.bars.advance(self.whole)

    def measuring(self, done: int, total: int) -> None:
        if self.latencies is None:
            self.latencies = self.bars.add_task("measuring latency", total=total)
        self.bars.update(self.latencies, completed=done)

    def progress(self, event: replicate.Progress) -> None:
        if event.replicate not in self.replicates:
            self.replicates[event.replicate] = self.bars.add_task("", total=event.iterations)
            self.trainings[event.replicate] = (event.round, event.branch)
        if self.trainings[event.replicate] != (event.round, event.branch):
            # A bar that was full stays finished, and shows no time left, until it is reset.
            self.bars.reset(self.replicates[event.replicate])
            self.trainings[event.replicate] = (event.round, event.branch)
        self.bars.update(
            self.replicates[event.replicate],
            completed=event.iteration,
            total=event.iterations,
            description=f"replicate {event.replicate}, {_where(event)}",
        )


class _LineWatcher:
    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = self.printed = time.monotonic()
        self.units = self.finished = self.earlier = 0
        self.measured: float | None = None

    def watcher(self) -> Watcher:
        return Watcher(self.begin, self.unit, lambda event: None, self.measuring, self.features, self.planned)

    def planned(self, plan: Forecast) -> None:
        self._print(estimate_line([plan]))

    def features(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.printed >= LINE_SECONDS:
            self.printed = now
            self._print(f"{done} of {total} examples have passed the frozen base")

    def begin(self, units: int, finished: int) -> None:
        self.units, self.finished, self.earlier = units, finished, finished
        done = f", {finished} of them finished earlier" if finished else ""
        self._print(f"{units} trainings to run{done}")

    def unit(self, row: Row) -> None:
        self.finished += 1
        now = time.monotonic()
        if now - self.printed < LINE_SECONDS:
            return
        self.printed = now
        left = (now - self.began) / (self.finished - self.earlier) * (self.units - self.finished)
        self._print(
            f"{self.finished} of {self.units} trainings, about {left:.0f} s left; replicate {row['replicate']}, "
            f"round {row['round']}, {row['density']:.1%} {row['branch']}: "
            f"validation {row['validation_accuracy']:.2%}"
        )

    def measuring(self, done: int, total: int) -> None:
        """The first time after a few seconds, then now and then."""
        now = time.monotonic()
        if self.measured is None:
            self.measured, self.printed = now, now - LINE_SECONDS + FIRST_LINE_SECONDS
        if now - self.printed >= LINE_SECONDS and done < total:
            self.printed = now
            self._print(f"latency of {done} of {total} networks measured")

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)


def stability_progress(console: Console) -> Callable[[Any], None]:
    """Prints where the copies of a stability analysis are, a line now and then."""
    printed = time.monotonic()

    def report(event: Any) -> None:
        nonlocal printed
        number, copy, evaluation, total = event
        if time.monotonic() - printed >= LINE_SECONDS:
            printed = time.monotonic()
            line = f"replicate {number}, copy {copy}: iteration {evaluation.iteration} of {total}"
            console.print(f"{line}, validation {evaluation.accuracy:.1%}", highlight=False)

    return report


def _where(event: replicate.Progress) -> str:
    return f"round {event.round}, {event.density:.1%} {event.branch}, validation {event.accuracy:.1%}"


def show_forecast(console: Console, plan: Forecast, config: LotteryConfig) -> None:
    """The plan of a study and what it will cost."""
    console.print(drawn(plan.table()))
    for line in lines(plan, config):
        console.print(line, highlight=False, soft_wrap=True)


def runs_table(out: Path) -> Table | None:
    """One line for every lottery run below `out`; None where there is none."""
    rows = []
    for manifest in sorted(out.glob("lottery-*/manifest.json")):
        try:
            opened = open_run(manifest.parent)
            result = opened.result()
            refuse(opened.folder, findings(opened.folder, quick=True))
        except TombolaError as error:
            rows.append((manifest.parent.name, "damaged", str(error), ""))
            continue
        done = result.verdict.replicates if result else 0
        state = f"{done} of {opened.config.replicates} replicates"
        verdict = result.verdict if result else None
        density = f"{verdict.density:.1%}" if verdict and verdict.density is not None else ""
        whole = verdict is not None and done == opened.config.replicates
        rows.append((manifest.parent.name, state, verdict.outcome if verdict and whole else "not finished", density))
    return Table(("Run", "State", "Verdict", "At density"), rows) if rows else None


def show_result(console: Console, result: Result) -> None:
    """The table, the checks, the verdict in one sentence and where the report lies."""
    console.print(drawn(results_table(result.summaries, costs=False), bold=("dense", "ticket")))
    console.print(TABLE_NOTE + "\n", highlight=False)
    first = result.config.rewind[0]
    tickets, rows = summaries_of_mode(result.summaries, first), rows_of_mode(result.rows, first)
    console.print(drawn(rounds_table(tickets, rows), left=1))
    console.print(" ".join([COST_NOTE, *speed_notes(tickets, rows)]) + "\n", highlight=False, markup=False)
    notes = verdict_notes(result.verdict)
    for line in [*check_lines(result.rows), *notes, cost_line(result.rows), *origin_lines(result)]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    for mode, verdict in result.verdicts.items():
        said = f"{mode}: {verdict.sentence}" if len(result.verdicts) > 1 else verdict.sentence
        console.print(f"\n[bold]{escape(said)}[/bold]", highlight=False, soft_wrap=True)
    for note in (keras_line(result), f"Report: {result.folder.report}"):
        if note is not None:
            console.print(note, highlight=False, soft_wrap=True, markup=False)
