"""The result of a lottery study in the terminal: tables, checks, the verdict."""

from __future__ import annotations

from rich.console import Console

from tombola.errors import in_line
from tombola.reports.terminal import drawn, say
from tombola.studies.lottery.artefacts import keras_line
from tombola.studies.lottery.origins import origin_lines
from tombola.studies.lottery.over_replicates import rows_of_mode, summaries_of_mode
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.round_results import check_lines, results_table, table_note
from tombola.studies.lottery.search_costs import COST_NOTE, cost_line, rounds_table, speed_notes
from tombola.studies.lottery.verdict_notes import verdict_notes


def show_result(console: Console, result: Result) -> None:
    """The table, the checks, the verdict in one sentence and where the report lies."""
    console.print(drawn(results_table(result.summaries, costs=False), bold=("dense", "ticket")))
    say(console, f"{table_note(result.summaries)}\n")
    first = result.config.rewind[0]
    tickets, rows = summaries_of_mode(result.summaries, first), rows_of_mode(result.rows, first)
    console.print(drawn(rounds_table(tickets, rows), left=1))
    say(console, " ".join([COST_NOTE, *speed_notes(tickets, rows)]) + "\n")
    notes = verdict_notes(result.verdict)
    for line in [*check_lines(result.rows), *notes, cost_line(result.rows), *origin_lines(result)]:
        say(console, line)
    for mode, verdict in result.verdicts.items():
        said = f"{mode}: {verdict.sentence}" if len(result.verdicts) > 1 else verdict.sentence
        say(console, f"\n{said}", "bold")
    for note in (keras_line(result), f"Report: {in_line(result.folder.report)}"):
        if note is not None:
            say(console, note)
