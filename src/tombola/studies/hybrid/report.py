"""What you see of a hybrid study: the page, and the result as a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tombola.reports.chart import Chart
from tombola.reports.documents import bullet_block, document, fold_block, table_block
from tombola.reports.figures import figure_html
from tombola.reports.html_tables import table_html
from tombola.reports.page import Section, bullets, copyable, folded, listing, page, paragraphs, titled
from tombola.runs.configs import dump_config
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.header import document_foot, run_header
from tombola.studies.base.numbers import begun, percent
from tombola.studies.hybrid import exit_curves
from tombola.studies.hybrid.answers import answers_of, lotteries_of
from tombola.studies.hybrid.checks import check_lines, facts_lines
from tombola.studies.hybrid.forest_results import EXITS_NOTE, baselines_table, exits_table, features_table
from tombola.studies.hybrid.gating import GATES_NOTE, gates_table
from tombola.studies.hybrid.questions import Answer, Lottery, tickets_line
from tombola.studies.hybrid.result import HybridResult
from tombola.studies.hybrid.rounds import ROUNDS_NOTE, rounds_table
from tombola.studies.hybrid.timings import latency_remarks, latency_table
from tombola.studies.lottery.curves import WON

CAPTIONS = {"exits.png": "Accuracy at every exit", "gate.png": "Accuracy against mean cost of a gated early exit"}
"""The figures beside the document, and what they show."""
FIGURES = {name: name for name in CAPTIONS}
LATENCY_NOTE = (
    "Median µs per call [quartiles], measured once on the machine of the run: replicate 0 on test images, float32, one "
    "thread, all pipelines taking turns. Every network ran on both engines, a dense one with all its weights; behind "
    "an exit torch pools on both. The part cnn is the network up to the exit and the pooling, forest its ONNX file, "
    "whole both."
)
MEASURED = (
    "FLOPs are of one example's forward pass, a multiply-add being two; effective ones count kept weights only, as a "
    "perfect sparse engine would. They are no claim of speed.",
    "Comparisons are a forest's: the nodes that a mean example passes, over all trees. They are no FLOPs and are "
    "never added to them.",
    "Features of an exit, the best exit and thresholds of a gate are chosen on validation, and what is chosen is "
    "looked at on test once; a lottery's verdict chooses a density on validation. All else is of the test set.",
    "Differences are paired by replicate, their intervals two-sided 95 % (Student t) each by itself. Accuracies are "
    "fractions of a finite test set, so differences are given at least the spread of two rounding errors.",
    "Where several differences are looked at in one answer, what is called shown, better or worse is at 5 % after "
    "Holm's correction. No significant difference is no proof of none: beside it stands the true difference that 80 % "
    "of such studies would find, at the spread seen and the strictest level of the correction (noncentral t).",
    "Intervals are over replicates on this data set and its test examples. That a study may be looked at again after "
    "more replicates is accounted for in the lotteries' verdicts and where a ticket is said to match or beat dense, "
    "and nowhere else.",
    "A frozen base is one network: its replicates differ in split and forest only, so their spread says nothing of "
    "how bases differ. A dense network and a ticket are trained anew in every replicate.",
)


def report_page(result: HybridResult) -> str:
    """`report.html`, whole: the answers first."""
    answers, rows, config = answers_of(result), result.rows, result.config
    sections = [
        Section("The four questions", _answers_body(answers)),
        Section("Lotteries", _lotteries_body(result)),
        Section("Exits", paragraphs([_tickets(result)]) + _exits_body(rows)),
        Section("Gates", _gates_body(rows)),
        Section("Latency", _latency_body(rows)),
        Section("Checks of the run", bullets(check_lines(rows))),
        Section("How it was measured", bullets([*MEASURED, *facts_lines(rows)])),
        Section("Configuration", listing(dump_config(config, defaults=False), "Configuration")),
    ]
    verdict = f"{answers[1].lead} {answers[3].lead}"
    seed = config.cnn.seed if config.seed is None else config.seed
    replicates = len({row["replicate"] for row in rows_of(rows, kind="forest")})
    return page(run_header(f"Hybrid study: {config.name}", verdict, result.folder, seed, replicates), sections)


def summary_markdown(result: HybridResult, figures: Mapping[str, str] = FIGURES) -> str:
    """The result as a document: the answers and the figures, then what they stand on, long tables folded.

    Args:
        result: what the run came to.
        figures: where `exits.png` and `gate.png` lie, from the document.
    """
    rows = result.rows
    gates = gates_table(rows)
    gating = table_block(gates, "Gates at their chosen thresholds", GATES_NOTE)
    charts = {"exits.png": exit_curves.exits_chart(rows), "gate.png": exit_curves.gate_chart(rows)}
    return document(
        f"# {result.config.name}: CNN features, random forests and tickets",
        *[f"**{answer.question}** {answer.lead}" for answer in answers_of(result)],
        *[f"![{CAPTIONS[name]}]({figures[name]})" for name, chart in charts.items() if chart is not None],
        fold_block("Evidence for the answers", *_evidence(answers_of(result))),
        "## Lotteries",
        *_lotteries_parts(result),
        "## Exits",
        _tickets(result),
        table_block(exits_table(rows), "Forests at every exit", EXITS_NOTE),
        "## Baselines",
        table_block(baselines_table(rows), "Baselines: forests without a network, whole networks"),
        "## Gates",
        gating if gates.rows else "No gate was measured.",
        "## Latency",
        *_latency_parts(rows),
        "## Checks",
        bullet_block(check_lines(rows)),
        "## How it was measured",
        fold_block("Formulas, choices and intervals", bullet_block([*MEASURED, *facts_lines(rows)])),
        *document_foot(result.folder.read_manifest(), result.config, "replicate", defaults=False),
    )


def _evidence(answers: Sequence[Answer]) -> list[str]:
    return [f"**{a.question}** {' '.join(a.sentences[1:])}" for a in answers if len(a.sentences) > 1]


def _tickets(result: HybridResult) -> str:
    return tickets_line([*lotteries_of(result).values()])


def _answers_body(answers: Sequence[Answer]) -> str:
    """Each answer in one sentence, what it stands on folded below."""
    parts = []
    for answer in answers:
        evidence = folded("Evidence", paragraphs(answer.sentences[1:])) if len(answer.sentences) > 1 else ""
        parts.append(titled(answer.question, paragraphs([answer.lead]) + evidence))
    return "".join(parts)


def _lotteries_body(result: HybridResult) -> str:
    tables = [
        table_html(rounds_table(lottery), begun(lottery.title), marked=_won(lottery))
        for lottery in lotteries_of(result).values()
    ]
    return "".join(tables) + paragraphs([ROUNDS_NOTE], "note")


def _won(lottery: Lottery) -> dict[str, str]:
    """The sparsity whose ticket won or matches, and which of the two."""
    verdict = lottery.verdict
    if verdict.outcome not in WON or verdict.density is None:
        return {}
    return {percent(1 - verdict.density): verdict.outcome}


def _lotteries_parts(result: HybridResult) -> list[str]:
    parts = []
    for name, lottery in lotteries_of(result).items():
        title = begun(lottery.title)
        parts += [
            f"{title}, run `{result.lotteries[name].folder.root.name}`:",
            table_block(rounds_table(lottery), title),
        ]
    return [*parts, ROUNDS_NOTE]


def _exits_body(rows: Sequence[Row]) -> str:
    figure = _figure(exit_curves.exits_chart(rows), exit_curves.EXITS_CAPTION)
    exits = table_html(exits_table(rows), "Forests at every exit", EXITS_NOTE, grouped=True)
    baselines = table_html(baselines_table(rows), "Baselines: forests without a network, whole networks")
    return figure + exits + baselines + copyable("Every features at every exit, as CSV", features_table(rows).to_csv())


def _gates_body(rows: Sequence[Row]) -> str:
    if not rows_of(rows, kind="gate"):
        return paragraphs(["No gate was measured."])
    table = table_html(gates_table(rows), "Gates at their chosen thresholds", GATES_NOTE)
    return _figure(exit_curves.gate_chart(rows), exit_curves.GATE_CAPTION) + table


def _latency_body(rows: Sequence[Row]) -> str:
    if not rows_of(rows, kind="latency"):
        return bullets(latency_remarks(rows))
    note = " ".join([LATENCY_NOTE, *latency_remarks(rows)])
    return table_html(latency_table(rows), "Measured time per call", note, grouped=True)


def _latency_parts(rows: Sequence[Row]) -> list[str]:
    measured = bool(rows_of(rows, kind="latency"))
    table = [table_block(latency_table(rows), "Measured time per call"), LATENCY_NOTE] if measured else []
    return [*table, *latency_remarks(rows)]


def _figure(chart: Chart | None, caption: str) -> str:
    return "" if chart is None else figure_html(chart, caption)
