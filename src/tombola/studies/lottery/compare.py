"""`tombola report` of several lotteries: all of them on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tombola.errors import ConfigError
from tombola.reports import nature
from tombola.reports.chart import Chart, Series
from tombola.reports.figures import figure_html
from tombola.reports.html_tables import table_html
from tombola.reports.page import Header, Section, bullets, copyable, page
from tombola.reports.tables import Table
from tombola.runs.atomic import write_text
from tombola.runs.configs import flat
from tombola.studies.base.header import run_header
from tombola.studies.base.opened import read_result
from tombola.studies.lottery.curves import test_axis, within
from tombola.studies.lottery.over_replicates import summaries_of_mode
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.round_results import results_table, table_note
from tombola.studies.lottery.search_costs import COST_NOTE
from tombola.studies.lottery.study import open_lottery


def compare_runs(roots: Sequence[Path], out: Path) -> Path:
    """Writes a page with the tickets of several runs on one figure to `out`; returns it. A run counts once.

    ConfigError for runs that are compared by different measures, which share no axis.
    """
    distinct = list(dict.fromkeys(root.resolve() for root in roots))
    results = [read_result(open_lottery(root)) for root in distinct]
    names = _names(results)
    measures = list(dict.fromkeys(result.measure for result in results))
    if len(measures) > 1:
        said = ", ".join(f"{name} by {result.measure.words}" for name, result in zip(names, results, strict=True))
        raise ConfigError(
            f"these runs do not go on one page, for their networks are compared by other measures: {said}"
        )
    chart = comparison_chart(results, names)
    caption = (
        f"Final test {measures[0].words} of each run's ticket, mean over its replicates; bands 95 % confidence "
        "intervals."
    )
    table = comparison_table(results, names)
    verdicts = [
        f"{line}: {verdict.sentence}"
        for name, result in zip(names, results, strict=True)
        for line, verdict in zip(_lines(name, result), result.verdicts.values(), strict=True)
    ]
    shown = table_html(
        table, "Every round of every run", f"{table_note(results[0].summaries)} {COST_NOTE}", grouped=True
    )
    differ = table_html(differences_table(results, names), "Keys that differ")
    sections = [
        Section("Tickets", figure_html(chart, caption)),
        Section("Verdicts", bullets(verdicts)),
        Section("What differs between their configs", differ),
        Section("Results", shown + copyable("As CSV", table.to_csv()) + copyable("As LaTeX", table.to_latex())),
    ]
    head = Header("Lottery runs compared", f"{len(results)} runs: {', '.join(names)}.", _facts(names, results))
    write_text(out, page(head, sections))
    return out


def _facts(names: Sequence[str], results: Sequence[Result]) -> list[tuple[str, str]]:
    """Of every run, when it was begun, by which version, on what."""
    facts = []
    for name, result in zip(names, results, strict=True):
        found = dict(run_header("", "", result.folder, result.config.seed, result.verdict.replicates).facts)
        said = (found.get(fact) for fact in ("Run", "Begun", "Machine", "Seeds", "Data"))
        facts.append((name, "; ".join([*(fact for fact in said if fact), f"Tombola {found.get('Tombola', '–')}"])))
    return facts


def comparison_chart(results: Sequence[Result], names: Sequence[str]) -> Chart:
    """One line for every run and mode of rewinding."""
    series: list[Series] = []
    for name, result in zip(names, results, strict=True):
        for line, mode in zip(_lines(name, result), result.config.rewind, strict=True):
            points = [s for s in summaries_of_mode(result.summaries, mode) if s.branch in ("dense", "ticket")]
            densities = [100 * s.density for s in points]
            series.append(Series(line, densities, [s.test for s in points], len(series)))
    measure = results[0].measure
    return Chart(nature.DENSITY_AXIS, test_axis(measure), series, over_density=True, within=within(measure))


def comparison_table(results: Sequence[Result], names: Sequence[str]) -> Table:
    tables = [results_table(result.summaries) for result in results]
    rows = [(name, *row) for name, table in zip(names, tables, strict=True) for row in table.rows]
    return Table(("Run", *tables[0].columns), rows)


def differences_table(results: Sequence[Result], names: Sequence[str]) -> Table:
    """The config keys in which the runs are not all equal."""
    configs = [flat(result.config.model_dump(mode="json")) for result in results]
    keys = [key for key in dict.fromkeys(k for f in configs for k in f) if len({str(f.get(key)) for f in configs}) > 1]
    return Table(("Key", *names), [(key, *(str(f.get(key)) for f in configs)) for key in keys])


def _lines(name: str, result: Result) -> list[str]:
    """What the run's lines are called: with several modes of rewinding, by these too."""
    modes = result.config.rewind
    return [name] if len(modes) == 1 else [f"{name} ({mode})" for mode in modes]


def _names(results: Sequence[Result]) -> list[str]:
    """Names of configs, or of folders where these are not distinct."""
    names = [result.config.name for result in results]
    return names if len(set(names)) == len(names) else [result.folder.root.name for result in results]
