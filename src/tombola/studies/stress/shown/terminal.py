"""The result of a stress study in the terminal, and for programs."""

from __future__ import annotations

from rich.console import Console

from tombola.errors import in_line
from tombola.reports.terminal import drawn, say
from tombola.studies.base.output import Numbers
from tombola.studies.stress.outcome.answers import answers
from tombola.studies.stress.outcome.programs import as_json
from tombola.studies.stress.outcome.quantities import QUANTITIES
from tombola.studies.stress.outcome.remarks import remarks
from tombola.studies.stress.outcome.result import Stress
from tombola.studies.stress.outcome.steering import steered
from tombola.studies.stress.shown.conclusions import in_short, plasticity_line, verdict
from tombola.studies.stress.shown.result_tables import null_lines, short_note, short_table

SHOWN = "Each interval is by itself; shown is what is so after Holm's correction within its question."


def show_result(console: Console, result: Stress) -> None:
    """The table, why numbers are missing, the verdict on plasticity, what a search chose and how difficulty followed,
    the five answers, and where the report lies."""
    console.print(drawn(short_table(result), left=3 if len(result.models) > 1 else 1))
    say(console, short_note(result))
    for line in null_lines(result):
        say(console, line)
    say(console, f"\n{verdict(result)}", "bold")
    for answer in [*steered(result), *answers(result)]:
        say(console, f"\n{answer.question}", "bold")
        say(console, answer.sentence)
    if len(result.seeds) > 1:
        say(console, f"\n{SHOWN}")
    say(console, f"\nReport: {in_line(result.folder / 'report.html')}")


def numbers(result: Stress) -> Numbers:
    """A row for every strategy and level; answers and remarks; units by metric."""
    found = as_json(result)["pruning_results"]
    whose = ("model", "strategy", "level", "remedy", "seeds", "draws", "dead")
    rows = [
        {"name": name, **{part: group[part] for part in whose}, "metrics": group["estimates"]}
        for name, group in found.items()
    ]
    said = {
        "plasticity": plasticity_line(result),
        "answers": [one.entry for one in answers(result)],
        "remarks": [one.entry for one in remarks(result)],
    }
    return Numbers(rows, said, {key: one.unit for key, one in QUANTITIES.items() if one.unit})


def outcome(result: Stress) -> str:
    """A few words for `tombola list`."""
    return in_short(result)
