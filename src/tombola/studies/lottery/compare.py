"""`tombola report`: a run's page made anew, or several runs on one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tombola.errors import ConfigError
from tombola.reports import curves, nature
from tombola.reports.curves import Chart, Series
from tombola.reports.page import Section, copyable, figure_html, page
from tombola.reports.tables import Table
from tombola.runs.atomic import write_text
from tombola.runs.folder import writing
from tombola.studies.lottery.report import report_page
from tombola.studies.lottery.result import Result, open_run
from tombola.studies.lottery.stability import stored_stabilities
from tombola.studies.lottery.tables import TABLE_NOTE, results_table


def report_run(root: Path) -> Path:
    """Makes `report.html` of a run anew from its rows; returns its path."""
    result = result_of(root)
    with writing(result.folder):
        write_text(result.folder.report, report_page(result, stored_stabilities(root)))
    return result.folder.report


def compare_runs(roots: Sequence[Path], out: Path) -> Path:
    """Writes a page with the tickets of several runs on one figure to `out`; returns it."""
    results = [result_of(root) for root in roots]
    names = _names(results)
    chart = comparison_chart(results, names)
    caption = "Final test accuracy of each run's ticket, mean over its replicates; bands 95 % confidence intervals."
    table = comparison_table(results, names)
    verdicts = Table(("Run", "Verdict"), [(n, r.verdict.sentence) for n, r in zip(names, results, strict=True)])
    sections = [
        Section("Tickets", figure_html(curves.plotly_figure(chart), caption)),
        Section("Verdicts", verdicts.to_html()),
        Section(
            "Results",
            table.to_html()
            + f"<p class='caption'>{TABLE_NOTE}</p>"
            + copyable("As CSV", table.to_csv())
            + copyable("As LaTeX", table.to_latex()),
        ),
    ]
    write_text(out, page("Lottery runs compared", f"{len(results)} runs: {', '.join(names)}.", sections))
    return out


def comparison_chart(results: Sequence[Result], names: Sequence[str]) -> Chart:
    series = []
    for style, (name, result) in enumerate(zip(names, results, strict=True)):
        mode = result.config.rewind[0]
        points = [s for s in result.summaries if s.branch == "dense" or (s.branch == "ticket" and s.rewind == mode)]
        series.append(Series(name, [100 * s.density for s in points], [s.test_accuracy for s in points], style))
    return Chart(nature.DENSITY_AXIS, "Test accuracy (%)", series, over_density=True)


def comparison_table(results: Sequence[Result], names: Sequence[str]) -> Table:
    tables = [results_table(result.summaries) for result in results]
    rows = [(name, *row) for name, table in zip(names, tables, strict=True) for row in table.rows]
    return Table(("Run", *tables[0].columns), rows)


def result_of(root: Path) -> Result:
    """The result of a run; ConfigError while no replicate is complete."""
    result = open_run(root).result()
    if result is None:
        raise ConfigError(f"{root}: no replicate is complete yet; run its study first")
    return result


def _names(results: Sequence[Result]) -> list[str]:
    """Names of configs, or of folders where these are not distinct."""
    names = [result.config.name for result in results]
    return names if len(set(names)) == len(names) else [result.folder.root.name for result in results]
