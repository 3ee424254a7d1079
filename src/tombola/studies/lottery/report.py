"""What you see of a lottery study: the page."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.reports.figures import figure_html
from tombola.reports.html_tables import table_html
from tombola.reports.page import Header, Section, bullets, copyable, listing, page, paragraphs
from tombola.runs.configs import dump_config
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.header import run_header
from tombola.studies.base.numbers import begun
from tombola.studies.lottery import averaged, curves, maps
from tombola.studies.lottery.origins import origin_lines
from tombola.studies.lottery.over_replicates import Summary, rows_of_mode, summaries_of_mode
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.round_results import check_lines, early_stop_note, results_table, table_note
from tombola.studies.lottery.search_costs import (
    COST_NOTE,
    cost_line,
    cost_table,
    early_bird_line,
    rounds_table,
    speed_notes,
)
from tombola.studies.lottery.stabilities import StabilityResult, stability_caption, stability_chart
from tombola.studies.lottery.verdict import Verdict
from tombola.studies.lottery.verdict_notes import verdict_notes

JUDGED = "Dense, and the round of the verdict"
IMAGE_AXES = 3
"""Of an example that is an image: channels, height, width."""


def report_page(result: Result, stabilities: Sequence[StabilityResult] = ()) -> str:
    """`report.html`, whole. Figures are of the run's first mode of rewinding; the others are compared with it."""
    first = result.config.rewind[0]
    rows, summaries = rows_of_mode(result.rows, first), summaries_of_mode(result.summaries, first)
    n = f"n = {result.verdict.replicates} replicates, bands 95 % confidence intervals (Student t)."
    sections = [
        _accuracy_section(result, rows, summaries, n),
        _results_section(result),
        *_mode_sections(result, n),
        *_averaged_sections(result, rows, summaries, n),
        Section("How soon it learns", _early_stop_body(result, rows, summaries, n)),
        *_origin_sections(result),
        Section("Sparsity against time, and what the search cost", _cost_body(result, summaries, rows, n)),
        Section("Speed", speed_body(result, summaries, rows)),
        Section(
            "Where the weights go",
            figure_html(maps.layer_figure(rows), f"Fraction of each layer's weights kept; {n}"),
        ),
        *_map_sections(rows, summaries),
        *_overlap_sections(rows),
        Section(
            "Training curves of chosen rounds",
            figure_html(curves.training_chart(rows, summaries), f"By weights remaining; {n}"),
        ),
        *[
            Section(f"Stability of round {s.round} ({s.mode})", figure_html(stability_chart(s), stability_caption(s)))
            for s in stabilities
        ],
        Section("Checks of the run", bullets(check_lines(result.rows)) + paragraphs([f"{cost_line(result.rows)}."])),
        Section("Configuration", listing(dump_config(result.config), "Configuration")),
    ]
    return page(header(result, f"Lottery study: {result.config.name}"), sections)


def header(result: Result, title: str) -> Header:
    """The head of every page of a lottery study."""
    config = result.config
    several = f"Rewound to {config.rewind[0]}: " if len(result.verdicts) > 1 else ""
    verdict = f"{several}{result.verdict.sentence}"
    return run_header(title, verdict, result.folder, config.seed, result.verdict.replicates)


def accuracy_caption(result: Result) -> str:
    config = result.config
    return (
        f"Final test {result.measure.words}, mean of n = {result.verdict.replicates} replicates; bands are 95 % "
        "confidence intervals of the mean (Student t). Bands may overlap where the differences, paired by replicate, "
        f"are clear: the verdict uses these. {config.model.title} on {config.subject}, rewound to {config.rewind[0]}."
    )


def judged_summaries(result: Result) -> list[Summary]:
    """The dense network, and the round that the verdict is of, else that of the run's ticket."""
    verdict = result.verdict
    shown = verdict.round if verdict.round is not None else result.ticket_round
    return [s for s in result.summaries if s.round in (0, shown)]


def won(summaries: Sequence[Summary], verdict: Verdict) -> dict[str, str]:
    """What tables say at the density of the round that won or matches; empty where none did."""
    if verdict.outcome not in curves.WON:
        return {}
    return {f"{s.density:.1%}": verdict.outcome for s in summaries if s.round == verdict.round}


def _accuracy_section(result: Result, rows: Sequence[Row], summaries: Sequence[Summary], n: str) -> Section:
    measure = result.measure
    curve = curves.marked(curves.accuracy_chart(summaries), summaries, result.verdict)
    caption = f"Differences in final test {measure.words}, paired by replicate; {n}"
    gaps = figure_html(curves.gaps_chart(rows, measure), caption)
    said = paragraphs(verdict_notes(result.verdict))
    title = f"{begun(measure.words)} against weights remaining"
    return Section(title, figure_html(curve, accuracy_caption(result)) + said + gaps)


def _results_section(result: Result) -> Section:
    """What the verdict is of first, every round folded below."""
    summaries, short = result.summaries, judged_summaries(result)
    marked, note = won(summaries, result.verdict), f"{table_note(summaries)} {COST_NOTE}"
    tables = [table_html(results_table(short), JUDGED, note, grouped=True, marked=marked)]
    whole = results_table(summaries)
    if len(short) < len(summaries):
        tables.append(table_html(whole, "Every round", grouped=True, marked=marked))
    return Section(
        "Results", "".join(tables) + copyable("As CSV", whole.to_csv()) + copyable("As LaTeX", whole.to_latex())
    )


def _mode_sections(result: Result, n: str) -> list[Section]:
    if len(result.config.rewind) < 2:
        return []
    chart = curves.modes_chart(result.summaries, result.config.rewind)
    figure = figure_html(chart, f"Tickets by what they rewind to; {n}")
    return [
        Section(
            "Modes of rewinding",
            figure + bullets([f"{mode}: {verdict.sentence}" for mode, verdict in result.verdicts.items()]),
        )
    ]


def _averaged_sections(result: Result, rows: Sequence[Row], summaries: Sequence[Summary], n: str) -> list[Section]:
    if not averaged.has_averages(rows):
        return []
    chart = averaged.averaged_chart(rows, summaries)
    table = averaged.averaged_table(rows, summaries)
    marked = won(summaries, result.verdict)
    shown = table_html(table, "Raw and averaged weights", averaged.NOTE, grouped=True, marked=marked)
    return [Section("Averaged weights", figure_html(chart, f"Dense network and tickets; {n}") + shown)]


def _early_stop_body(result: Result, rows: Sequence[Row], summaries: Sequence[Summary], n: str) -> str:
    chart = curves.marked(curves.early_stop_chart(summaries), summaries, result.verdict, "early_stop_iteration")
    return figure_html(
        chart,
        f"Iteration of minimum validation loss; {n} Lower learns sooner. Trained for {result.config.training.length}. "
        + early_stop_note(rows),
    )


def _origin_sections(result: Result) -> list[Section]:
    lines = origin_lines(result)
    return [Section("What came before", paragraphs(lines))] if lines else []


def _cost_body(result: Result, summaries: Sequence[Summary], rows: Sequence[Row], n: str) -> str:
    figure = figure_html(curves.cost_chart(summaries), f"{curves.COST_CAPTION} {n}")
    note = "Mean per replicate, in trainings of the dense network (all modes of rewinding)."
    table = table_html(cost_table(result.summaries), "What each round cost", note)
    bird = early_bird_line(rows)
    return figure + table + paragraphs([f"{cost_line(result.rows)}.", *([bird] if bird else [])])


def speed_table(result: Result, summaries: Sequence[Summary], rows: Sequence[Row], notes: Sequence[str]) -> str:
    """What a ticket's training cost and how fast it is."""
    note = " ".join([COST_NOTE, *notes])
    marked = won(summaries, result.verdict)
    return table_html(rounds_table(summaries, rows), "Cost of training and measured speed", note, marked=marked)


def speed_body(result: Result, summaries: Sequence[Summary], rows: Sequence[Row]) -> str:
    """The table, below a figure where speed was measured."""
    notes, chart = speed_notes(summaries, rows), curves.speed_chart(summaries, rows)
    if chart is None:
        return speed_table(result, summaries, rows, notes)
    return figure_html(chart, " ".join(notes)) + speed_table(result, summaries, rows, ())


def _map_sections(rows: Sequence[Row], summaries: Sequence[Summary]) -> list[Section]:
    """Surviving connections per pixel (mean over replicates), and weight histograms of replicate 0."""
    chosen = curves.chosen_rounds(summaries)
    sections = []
    if pixels := maps.pixel_maps(rows, chosen):
        seen = "pixel" if len(rows_of(rows, kind="connections")[0]["shape"]) == IMAGE_AXES else "number"
        caption = (
            f"Kept connections of every input {seen} to the first layer, mean over replicates; stronger is more, each "
            "map by its own scale."
        )
        sections.append(Section(f"Which {seen}s are looked at", figure_html(pixels, caption)))
    last = chosen[-1]
    if histograms := maps.weight_histograms(rows, last.round):
        caption = f"Kept weights of one ticket with {last.density:.1%} of the weights, before and after training."
        sections.append(Section("Weights before and after", figure_html(histograms, caption)))
    return sections


def _overlap_sections(rows: Sequence[Row]) -> list[Section]:
    if not rows_of(rows, kind="overlap"):
        return []
    caption = (
        "Fraction of a ticket's weights that another replicate's ticket keeps too, mean over all pairs of replicates."
    )
    return [Section("Do replicates find the same ticket?", figure_html(curves.overlap_chart(rows), caption))]
