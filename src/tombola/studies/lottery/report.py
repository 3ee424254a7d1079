"""What you see of a lottery study: the page, and the result as a document."""

from __future__ import annotations

import html
from collections.abc import Sequence

from tombola.reports import curves
from tombola.reports.curves import Chart
from tombola.reports.maps import histograms, pixel_maps
from tombola.reports.page import Section, copyable, figure_html, page
from tombola.runs.configs import dump_config
from tombola.runs.rows import Row, rows_of
from tombola.studies.lottery import charts
from tombola.studies.lottery.metrics import Summary, rows_of_mode, summaries_of_mode
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.stabilities import StabilityResult, stability_caption, stability_chart
from tombola.studies.lottery.tables import (
    COST_NOTE,
    check_lines,
    cost_line,
    cost_table,
    early_bird_line,
    early_stop_note,
    origin_lines,
    results_table,
    rounds_table,
    speed_notes,
    table_note,
    verdict_notes,
)

MOST_HISTOGRAMS = 4
"""Layers whose weights are shown, spread from the first to the last."""


def report_page(result: Result, stabilities: Sequence[StabilityResult] = ()) -> str:
    """`report.html`, whole. Figures are of the run's first mode of rewinding; the others are compared with it."""
    first = result.config.rewind[0]
    rows, summaries = rows_of_mode(result.rows, first), summaries_of_mode(result.summaries, first)
    config, n = (
        result.config,
        f"n = {result.verdict.replicates} replicates, bands 95 % confidence intervals (Student t).",
    )
    sections = [
        *_mode_sections(result, n),
        _accuracy_section(result, rows, summaries, n),
        Section(
            "How soon it learns",
            _figure(
                charts.early_stop_chart(summaries),
                f"Iteration of minimum validation loss; {n} Lower learns sooner. Trained for {config.training.length}. "
                + early_stop_note(rows),
            ),
        ),
        _table_section(result.summaries),
        *_origin_sections(result),
        Section("Sparsity against time, and what the search cost", _cost_body(result, summaries, rows, n)),
        Section("Speed", speed_body(summaries, rows)),
        Section("Where the weights go", _layers_body(rows, n)),
        *_map_sections(rows, summaries),
        *_overlap_sections(rows),
        Section(
            "Training curves of chosen rounds",
            _figure(charts.training_chart(rows, summaries), f"By weights remaining; {n}"),
        ),
        *[Section(f"Stability of round {s.round} ({s.mode})", _stability_body(s)) for s in stabilities],
        Section("Checks of the run", _list(check_lines(result.rows)) + f"<p>{cost_line(result.rows)}.</p>"),
        Section("Configuration", f"<pre>{html.escape(dump_config(config))}</pre>"),
    ]
    lead = result.verdict.sentence if len(result.verdicts) == 1 else f"Rewound to {first}: {result.verdict.sentence}"
    return page(f"Lottery study: {config.name}", lead, sections)


def accuracy_caption(result: Result) -> str:
    config = result.config
    return (
        f"Final test {result.measure.name}, mean of n = {result.verdict.replicates} replicates; bands are 95 % "
        "confidence intervals of the mean (Student t). Bands may overlap where the differences, paired by replicate, "
        f"are clear: the verdict uses these. {config.model.title} on {config.subject}, rewound to {config.rewind[0]}."
    )


def summary_markdown(result: Result) -> str:
    """The result as a document: verdict, table, how it was made."""
    manifest = result.folder.read_manifest()
    machine, facts = manifest["machine"], manifest["must_match"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    config, verdicts = result.config, result.verdicts
    several = len(verdicts) > 1
    judged = [
        f"**{f'Rewound to {mode}: ' if several else ''}{verdict.sentence}** {' '.join(verdict_notes(verdict))}"
        for mode, verdict in verdicts.items()
    ]
    bird = early_bird_line(result.rows)
    tickets, rows = summaries_of_mode(result.summaries, config.rewind[0]), rows_of_mode(result.rows, config.rewind[0])
    return "\n\n".join(
        [
            f"# {config.name}: {config.model.title} on {config.subject}",
            *judged,
            results_table(result.summaries).to_markdown(),
            f"{table_note(result.summaries)} {COST_NOTE} n = {result.verdict.replicates} replicates, Student t.",
            *origin_lines(result),
            "## Speed",
            rounds_table(tickets, rows).to_markdown(),
            " ".join([COST_NOTE, *speed_notes(tickets, rows)]),
            "## Cost",
            f"What each round cost, in trainings of the dense network. {cost_line(result.rows)}.",
            cost_table(result.summaries).to_markdown(),
            *([bird] if bird else []),
            early_stop_note(result.rows),
            f"Root seed {config.seed}; {machine['cpu']}, one thread per replicate; {versions}; data "
            f"{facts['data']['name']} ({facts['data']['checksum']}).",
            f"```yaml\n{dump_config(config).rstrip()}\n```\n",
        ]
    )


def _figure(chart: Chart, caption: str) -> str:
    return figure_html(curves.plotly_figure(chart), caption)


def _mode_sections(result: Result, n: str) -> list[Section]:
    if len(result.config.rewind) < 2:
        return []
    figure = _figure(charts.modes_chart(result.summaries, result.config.rewind), f"Tickets by what they rewind to; {n}")
    verdicts = _list([f"{mode}: {verdict.sentence}" for mode, verdict in result.verdicts.items()])
    return [Section("Modes of rewinding", figure + verdicts)]


def _accuracy_section(result: Result, rows: Sequence[Row], summaries: Sequence[Summary], n: str) -> Section:
    curve = _figure(charts.accuracy_chart(summaries), accuracy_caption(result))
    measure = result.measure
    gaps = _figure(
        charts.gaps_chart(rows, measure), f"Differences in final test {measure.name}, paired by replicate; {n}"
    )
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in verdict_notes(result.verdict))
    title = f"{measure.name[:1].upper()}{measure.name[1:]} against weights remaining"
    return Section(title, curve + notes + gaps)


def _table_section(summaries: Sequence[Summary]) -> Section:
    table, note = results_table(summaries), table_note(summaries)
    copies = copyable("As CSV", table.to_csv()) + copyable("As LaTeX", table.to_latex())
    return Section("Results", table.to_html() + f"<p class='caption'>{note} {COST_NOTE}</p>" + copies)


def _origin_sections(result: Result) -> list[Section]:
    lines = origin_lines(result)
    return [Section("What came before", "".join(f"<p>{html.escape(line)}</p>" for line in lines))] if lines else []


def _cost_body(result: Result, summaries: Sequence[Summary], rows: Sequence[Row], n: str) -> str:
    figure = _figure(
        charts.cost_chart(summaries),
        f"{charts.COST_CAPTION} {n}",
    )
    note = "<p class='caption'>Mean per replicate, in trainings of the dense network (all modes of rewinding).</p>"
    bird = early_bird_line(rows)
    note += f"<p>{cost_line(result.rows)}.</p>"
    return figure + cost_table(result.summaries).to_html() + note + (f"<p>{bird}</p>" if bird else "")


def speed_body(summaries: Sequence[Summary], rows: Sequence[Row]) -> str:
    """What a ticket's training cost and how fast it is, as a figure where speed was measured, and a table."""
    notes = speed_notes(summaries, rows)
    chart = charts.speed_chart(summaries, rows)
    figure = "" if chart is None else _figure(chart, " ".join(notes))
    notes = [COST_NOTE, *([] if figure else notes)]
    table = rounds_table(summaries, rows).to_html()
    return f"{figure}{table}<p class='caption'>{html.escape(' '.join(notes))}</p>"


def _layers_body(rows: Sequence[Row], n: str) -> str:
    return _figure(charts.layer_chart(rows), f"Fraction of each layer's weights kept; {n}")


def _map_sections(rows: Sequence[Row], summaries: Sequence[Summary]) -> list[Section]:
    """Surviving connections per pixel (mean over replicates), and weight histograms of replicate 0."""
    chosen = charts.chosen_rounds(summaries)
    maps, titles = [], []
    for summary in chosen:
        found = rows_of(rows, kind="connections", round=summary.round)
        if found:
            _, height, width = found[0]["shape"]
            pixels = height * width
            # Channels are added up: a pixel's connections are those of all its channels.
            means = [sum(sum(row["counts"][i::pixels]) for row in found) / len(found) for i in range(pixels)]
            maps.append([means[y * width : (y + 1) * width] for y in range(height)])
            titles.append(f"{summary.density:.1%}")
    sections = []
    if maps:
        caption = "Kept connections of every input pixel to the first layer, mean over replicates; darker is more."
        sections.append(Section("Which pixels are looked at", figure_html(pixel_maps(titles, maps), caption)))
    last = rows_of(rows, kind="histogram", replicate=min(row["replicate"] for row in rows), round=chosen[-1].round)
    if last:
        shown = sorted({round(i * (len(last) - 1) / (MOST_HISTOGRAMS - 1)) for i in range(MOST_HISTOGRAMS)})
        last = [last[i] for i in shown]
        figure = histograms(
            [row["layer"].removesuffix(".weight") for row in last],
            [row["limit"] for row in last],
            [row["before"] for row in last],
            [row["after"] for row in last],
        )
        caption = f"Kept weights of one ticket with {chosen[-1].density:.1%} of the weights, before and after training."
        sections.append(Section("Weights before and after", figure_html(figure, caption)))
    return sections


def _overlap_sections(rows: Sequence[Row]) -> list[Section]:
    if not rows_of(rows, kind="overlap"):
        return []
    caption = (
        "Fraction of a ticket's weights that another replicate's ticket keeps too, mean over all pairs of replicates."
    )
    return [Section("Do replicates find the same ticket?", _figure(charts.overlap_chart(rows), caption))]


def _stability_body(stability: StabilityResult) -> str:
    return _figure(stability_chart(stability), stability_caption(stability))


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"
