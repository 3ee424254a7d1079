"""The result of a lottery study as a document: verdict and figure first, what is long folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tombola.reports.documents import bullet_block, document, fold_block, table_block
from tombola.reports.tables import MOST_ROWS
from tombola.runs.rows import Row
from tombola.studies.base.header import document_foot
from tombola.studies.base.numbers import begun
from tombola.studies.lottery import averaged
from tombola.studies.lottery.origins import origin_lines
from tombola.studies.lottery.over_replicates import Summary, rows_of_mode, summaries_of_mode
from tombola.studies.lottery.report import JUDGED, judged_summaries
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.round_results import early_stop_note, results_table, table_note
from tombola.studies.lottery.search_costs import (
    COST_NOTE,
    cost_line,
    cost_table,
    early_bird_line,
    rounds_table,
    speed_notes,
)
from tombola.studies.lottery.verdict import Verdict
from tombola.studies.lottery.verdict_notes import verdict_notes

CURVE, MODES = "sparsity_curve.png", "modes.png"
"""The figures beside the document: the curve of the first mode of rewinding; all modes, where there are several."""


def figure_of(result: Result) -> str:
    """The figure of the document, a file beside it."""
    return MODES if len(result.verdicts) > 1 else CURVE


def summary_markdown(result: Result, figure: str | None = None) -> str:
    """The result as a document.

    Args:
        result: what the run came to.
        figure: where `figure_of(result)` lies, from the document; beside it by default.
    """
    config, figure = result.config, figure or figure_of(result)
    by_mode = ", by mode of rewinding" if len(result.verdicts) > 1 else ""
    tickets, rows = summaries_of_mode(result.summaries, config.rewind[0]), rows_of_mode(result.rows, config.rewind[0])
    return document(
        f"# {config.name}: {config.model.title} on {config.subject}",
        verdict_block(result.verdicts),
        f"![{begun(result.measure.words)} against weights remaining{by_mode}]({figure})",
        *_results_blocks(result),
        sureness_block(result.verdicts),
        *_averaged_blocks(rows, tickets),
        *origin_lines(result),
        "## Speed",
        " ".join([COST_NOTE, *speed_notes(tickets, rows)]),
        table_block(rounds_table(tickets, rows), "Cost of training and measured speed"),
        "## Cost",
        f"What each round cost, in trainings of the dense network. {cost_line(result.rows)}.",
        table_block(cost_table(result.summaries), "What each round cost"),
        early_bird_line(result.rows) or "",
        early_stop_note(result.rows),
        *document_foot(result.folder.read_manifest(), config, "replicate", seed=config.seed),
    )


def verdict_block(verdicts: Mapping[str, Verdict]) -> str:
    """The verdict; of several modes of rewinding a line for each."""
    if len(verdicts) == 1:
        return "".join(f"**{verdict.sentence}**" for verdict in verdicts.values())
    return bullet_block([f"**Rewound to {mode}**: {verdict.sentence}" for mode, verdict in verdicts.items()])


def sureness_block(verdicts: Mapping[str, Verdict]) -> str:
    """How sure the verdicts are, folded."""
    several = len(verdicts) > 1
    lines = [
        f"{f'Rewound to {mode}: ' if several else ''}{' '.join(verdict_notes(verdict))}"
        for mode, verdict in verdicts.items()
    ]
    return fold_block("How sure this is", *lines)


def _results_blocks(result: Result) -> list[str]:
    """The table of all rounds; before a long one the lines that the verdict is of."""
    whole = results_table(result.summaries)
    note = f"{table_note(result.summaries)} n = {result.verdict.replicates} replicates, Student t."
    if len(whole.rows) <= MOST_ROWS:
        return [table_block(whole, "Every round", f"{note} {COST_NOTE}")]
    short = results_table(judged_summaries(result), costs=False)
    return [f"{JUDGED}:", table_block(short, JUDGED, note), table_block(whole, "Every round", COST_NOTE)]


def _averaged_blocks(rows: Sequence[Row], summaries: Sequence[Summary]) -> list[str]:
    if not averaged.has_averages(rows):
        return []
    table = averaged.averaged_table(rows, summaries)
    return ["## Averaged weights", table_block(table, "Raw and averaged weights", averaged.NOTE)]
