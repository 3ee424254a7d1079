"""A hybrid study in the terminal: progress while it runs, the tables and the answers at its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID

from tombola.reports.tables import Table
from tombola.reports.terminal import LINE_SECONDS, drawn, progress_bars
from tombola.runs.rows import Row
from tombola.studies.hybrid.answers import answers_of, lotteries_of
from tombola.studies.hybrid.checks import check_lines
from tombola.studies.hybrid.outlook import Outlook
from tombola.studies.hybrid.questions import tickets_line
from tombola.studies.hybrid.result import HybridResult
from tombola.studies.hybrid.tables import EXITS_NOTE, GATES_NOTE, baselines_table, exits_table, gates_table
from tombola.studies.hybrid.timings import latency_remarks
from tombola.studies.hybrid.watcher import Watcher
from tombola.studies.hybrid.wording import NETWORK
from tombola.studies.lottery.forecast import estimate_line
from tombola.studies.lottery.terminal import show_forecast

ONLY_ON_THE_PAGE = ("F1", "MFLOPs", "kB network", "kB forest")
"""Columns for which a terminal has no room."""


@contextmanager
def watching(console: Console) -> Iterator[Watcher]:
    """A watcher that draws bars on a terminal, or prints a line now and then into a file or pipe."""
    if console.is_terminal:
        bars = progress_bars(console)  # started when the study itself begins: its lotteries draw their own before
        try:
            yield _BarWatcher(bars).watcher()
        finally:
            bars.stop()
    else:
        yield _LineWatcher(console).watcher()


class _BarWatcher:
    """One bar for all units, one for the latencies at the end."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.units: TaskID | None = None
        self.latencies: TaskID | None = None

    def watcher(self) -> Watcher:
        return Watcher(self.planned, self.begin, self.unit, self.measuring)

    def planned(self, outlook: Outlook) -> None:
        self.bars.console.print(_estimate(outlook), highlight=False, soft_wrap=True)

    def begin(self, total: int, done: int) -> None:
        self.bars.start()
        self.units = self.bars.add_task("exits and forests", total=total, completed=done)

    def unit(self, unit: Row) -> None:
        if self.units is not None:
            self.bars.update(self.units, advance=1, description=_named(unit))

    def measuring(self, done: int, total: int) -> None:
        if self.latencies is None:
            self.latencies = self.bars.add_task("measuring latency", total=total)
        self.bars.update(self.latencies, completed=done)


class _LineWatcher:
    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = self.printed = time.monotonic()
        self.total = self.done = self.earlier = 0

    def watcher(self) -> Watcher:
        return Watcher(self.planned, self.begin, self.unit, self.measuring)

    def planned(self, outlook: Outlook) -> None:
        self._print(_estimate(outlook))

    def begin(self, total: int, done: int) -> None:
        self.total, self.done, self.earlier = total, done, done
        earlier = f", {done} of them finished earlier" if done else ""
        self._print(f"{total} units of exits, forests and gates to run{earlier}")

    def unit(self, unit: Row) -> None:
        self.done += 1
        if not self._due():
            return
        left = (time.monotonic() - self.began) / (self.done - self.earlier) * (self.total - self.done)
        self._print(f"{self.done} of {self.total} units, about {left:.0f} s left; {_named(unit)}")

    def measuring(self, done: int, total: int) -> None:
        if done < total and self._due():
            self._print(f"{done} of {total} pipelines ready for timing")

    def _due(self) -> bool:
        now = time.monotonic()
        if now - self.printed < LINE_SECONDS:
            return False
        self.printed = now
        return True

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True, markup=False)


def show_outlook(console: Console, outlook: Outlook) -> None:
    """The plan of a study and what it will cost, lottery by lottery."""
    for role, (config, forecast) in outlook.lotteries.items():
        console.print(f"[bold]{role}[/bold]: the lottery {config.name}", highlight=False)
        show_forecast(console, forecast, config)
    console.print(f"{outlook.forests} forests, and gated early exits, after that", highlight=False, soft_wrap=True)


def show_result(console: Console, result: HybridResult) -> None:
    """The tables, the checks, the four answers and where the report lies."""
    rows = result.rows
    said = tickets_line([*lotteries_of(result).values()])
    console.print(said, highlight=False, soft_wrap=True, markup=False)
    console.print(drawn(_narrow(exits_table(rows)), left=3))
    console.print(EXITS_NOTE + "\n", highlight=False, markup=False)
    console.print(drawn(_narrow(baselines_table(rows)), left=1))
    gates = _narrow(gates_table(rows))
    if gates.rows:
        console.print(drawn(gates, left=3))
        console.print(GATES_NOTE + "\n", highlight=False, markup=False)
    for line in [*check_lines(rows), *latency_remarks(rows)]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    for answer in answers_of(result):
        console.print(f"\n[bold]{escape(answer.question)}[/bold]", highlight=False, soft_wrap=True)
        console.print(answer.text, highlight=False, soft_wrap=True, markup=False)
    console.print(f"\nReport: {result.folder.report}", highlight=False, soft_wrap=True, markup=False)


def _narrow(table: Table) -> Table:
    """Without the columns that only the page has room for."""
    kept = [i for i, column in enumerate(table.columns) if column not in ONLY_ON_THE_PAGE]
    return Table([table.columns[i] for i in kept], [[row[i] for i in kept] for row in table.rows])


def _named(unit: Row) -> str:
    """`replicate 0, ticket`."""
    return f"replicate {unit['replicate']}, {NETWORK[unit['network']]}"


def _estimate(outlook: Outlook) -> str:
    """What a new study will cost, in one line."""
    trainings = [forecast for _, forecast in outlook.lotteries.values()]
    forests = f"{outlook.forests} forests"
    return f"{estimate_line(trainings)}; then {forests}" if trainings else forests
