"""The result of a hybrid study in the terminal: tables, checks, answers."""

from __future__ import annotations

from rich.console import Console

from tombola.errors import in_line
from tombola.reports.tables import Table
from tombola.reports.terminal import drawn, say
from tombola.studies.hybrid.answers import answers_of, lotteries_of
from tombola.studies.hybrid.checks import check_lines
from tombola.studies.hybrid.forest_results import EXITS_NOTE, baselines_table, exits_table
from tombola.studies.hybrid.gating import GATES_NOTE, gates_table
from tombola.studies.hybrid.questions import tickets_line
from tombola.studies.hybrid.result import HybridResult
from tombola.studies.hybrid.timings import latency_remarks

ONLY_ON_THE_PAGE = ("F1", "MFLOPs", "kB network", "kB forest")
"""Columns for which a terminal has no room."""


def show_result(console: Console, result: HybridResult) -> None:
    """The tables, the checks, the four answers and where the report lies."""
    rows = result.rows
    said = tickets_line([*lotteries_of(result).values()])
    say(console, said)
    console.print(drawn(_narrow(exits_table(rows)), left=3))
    say(console, f"{EXITS_NOTE}\n")
    console.print(drawn(_narrow(baselines_table(rows)), left=1))
    gates = _narrow(gates_table(rows))
    if gates.rows:
        console.print(drawn(gates, left=3))
        say(console, f"{GATES_NOTE}\n")
    for line in [*check_lines(rows), *latency_remarks(rows)]:
        say(console, line)
    for answer in answers_of(result):
        say(console, f"\n{answer.question}", "bold")
        say(console, answer.text)
    say(console, f"\nReport: {in_line(result.folder.report)}")


def _narrow(table: Table) -> Table:
    """Without the columns that only the page has room for."""
    kept = [i for i, column in enumerate(table.columns) if column not in ONLY_ON_THE_PAGE]
    return Table([table.columns[i] for i in kept], [[row[i] for i in kept] for row in table.rows])
