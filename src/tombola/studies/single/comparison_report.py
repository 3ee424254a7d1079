"""What you see of a comparison: a page, a document, a figure per structure and distribution."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tombola.reports.chart import Chart, Series
from tombola.reports.documents import bullet_block, document, table_block
from tombola.reports.figures import figure_html
from tombola.reports.html_tables import table_html
from tombola.reports.intervals import Estimate
from tombola.reports.page import Section, bullets, copyable, listing, page, paragraphs
from tombola.reports.printed import png
from tombola.reports.tables import Table, plus_minus
from tombola.runs.atomic import write_bytes, write_text
from tombola.runs.configs import dump_config
from tombola.runs.folder import RunFolder
from tombola.runs.rows import Row
from tombola.studies.base.header import document_foot, run_header
from tombola.studies.base.numbers import counted, half_width, whole_percent
from tombola.studies.single.comparison import Comparison, Setting
from tombola.studies.single.stages import WHAT_HELPS

NOTE = (
    "Lost are points of test accuracy to the unpruned parent, mean ± half of the 95 % confidence interval (Student t), "
    "paired by replicate. (least): the method that loses least on validation; those without a significant difference "
    "to it have an asterisk (paired differences on test, at 5 % after Holm's correction for the methods of a setting; "
    "intervals are each by itself). No significant difference is no proof of none."
)


def write_beside(folder: RunFolder, comparison: Comparison) -> None:
    """The summary and the figures, beside the page."""
    write_text(folder.root / "summary.md", comparison_document(comparison, folder.read_manifest()))
    for structure, distribution in panels(comparison):
        chart = loss_chart(comparison, structure, distribution)
        if chart.series:
            write_bytes(folder.root / f"{figure_name(structure, distribution)}.png", png(chart))


def figure_name(structure: str, distribution: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{structure}-{distribution}")


def comparison_table(settings: Sequence[Setting]) -> Table:
    """One line per method; averaged weights have a column where there are some."""
    rows = []
    averages = any(method.averaged for setting in settings for method in setting.methods)
    for setting in settings:
        best, rivals = setting.best, setting.rivals
        for method in setting.methods:
            asked = (setting.structure, setting.distribution, whole_percent(setting.sparsity))
            if method.lost is None:
                rows.append((*asked, method.criterion, "refused", *[""] * (5 if averages else 4)))
                continue
            mark = " (least)" if method is best else " *" if method.criterion in rivals else ""
            mark += f", {method.fault}" if method.fault else ""
            assert method.accuracy is not None
            cells = [half_width(method.lost), _points(method.lost_pruned), plus_minus(method.accuracy)]
            if averages:
                cells.append("" if method.averaged is None else plus_minus(method.averaged))
            fractions = (_percent(method.weights_kept), _percent(method.flops_kept))
            rows.append((*asked, method.criterion + mark, *cells, *fractions))
    columns = ["Structure", "Distribution", "Removed", "Criterion", "Lost", "Before fine-tuning", "Test accuracy"]
    averaged = ["Averaged weights"] if averages else []
    return Table((*columns, *averaged, "Weights kept", "FLOPs kept"), rows)


def loss_chart(comparison: Comparison, structure: str, distribution: str) -> Chart:
    """Points lost against units kept, a line per criterion."""
    settings = [p for p in comparison.settings if (p.structure, p.distribution) == (structure, distribution)]
    series = []
    for style, criterion in enumerate(comparison.config.criteria):
        found = [
            (100 * method.units_kept, method.lost)
            for setting in settings
            for method in setting.methods
            if method.criterion == criterion and method.lost is not None and method.units_kept is not None
        ]
        if found:
            series.append(Series(criterion, [x for x, _ in found], [y for _, y in found], style))
    title = "Test accuracy lost (points)"
    return Chart(
        f"{structure.capitalize()}s kept (%), {distribution}", title, series, ("parent", 0.0), over_density=True
    )


def refusals(settings: Sequence[Setting]) -> list[str]:
    """Each reason once, with the settings it holds for."""
    found: dict[str, list[str]] = {}
    for setting in settings:
        for method in setting.methods:
            if method.refused is not None:
                found.setdefault(method.refused, []).append(f"{method.criterion} on {setting.name}")
    return [f"{'; '.join(where)}: {reason}" for reason, where in found.items()]


def emptied(rows: Sequence[Row]) -> list[str]:
    """The methods that leave layers nearly empty in some replicate, and which layers."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        if layers := row.get("nearly_empty"):
            setting = Setting(row["structure"], row["distribution"], row["sparsity"], [])
            named = found.setdefault(f"{row['criterion']} on {setting.name}", {})
            named.update(dict.fromkeys(name.removesuffix(".weight") for name in layers))
    return [f"{method} leaves nearly empty: {', '.join(layers)}." for method, layers in found.items()]


def remarks(comparison: Comparison) -> list[str]:
    """What is to be known of single methods: why they are refused, which layers they leave nearly empty."""
    return refusals(comparison.settings) + emptied(comparison.rows)


def comparison_page(comparison: Comparison) -> str:
    """`report.html`, whole."""
    config = comparison.config
    n = f"n = {counted(config.replicates, 'replicate')}, bands 95 % confidence intervals (Student t)."
    sections = []
    for structure, distribution in panels(comparison):
        chart = loss_chart(comparison, structure, distribution)
        figure = figure_html(chart, f"Lower loses less; {n}") if chart.series else ""
        said = bullets([setting.sentence for setting in _of(comparison, structure, distribution)])
        sections.append(Section(f"{structure}, {distribution}", figure + said))
    table = comparison_table(comparison.settings)
    copies = copyable("As CSV", table.to_csv()) + copyable("As LaTeX", table.to_latex())
    sections.append(Section("All methods", table_html(table, "Every method", NOTE, grouped=True) + copies))
    if refused := refusals(comparison.settings):
        sections.append(Section("Refused", bullets(refused)))
    if lines := emptied(comparison.rows):
        sections.append(Section("Layers left nearly empty", bullets(lines) + paragraphs([WHAT_HELPS], "note")))
    sections.append(Section("Configuration", listing(dump_config(config), "Configuration")))
    folder = RunFolder(comparison.folder)
    return page(
        run_header(f"Comparison: {config.name}", lead(comparison), folder, config.seed, config.replicates), sections
    )


def lead(comparison: Comparison) -> str:
    """How often which method lost least."""
    wins: dict[str, int] = {}
    for setting in comparison.settings:
        if setting.best is not None:
            wins[setting.best.criterion] = wins.get(setting.best.criterion, 0) + 1
    ranked = sorted(wins.items(), key=lambda item: -item[1])
    said = ", ".join(f"{criterion} in {count}" for criterion, count in ranked)
    found = f"Of {len(comparison.settings)} settings in the grid, these lose least on validation: {said or 'none'}."
    if comparison.parent_fault is None:
        return found
    return f"Nothing to lose: the parent {comparison.parent_fault}. {found}"


def comparison_document(comparison: Comparison, manifest: Mapping[str, Any], figures_at: str = "") -> str:
    """The comparison as Markdown; its figures are linked below `figures_at`."""
    config = comparison.config
    refused = [f"Refused: {reason}" for reason in refusals(comparison.settings)]
    figures = [
        f"![Test accuracy lost by {structure}, {distribution}]({figures_at}{figure_name(structure, distribution)}.png)"
        for structure, distribution in panels(comparison)
        if loss_chart(comparison, structure, distribution).series
    ]
    return document(
        f"# {config.name}: {config.model.architecture} on {config.data.name}",
        f"**{lead(comparison)}** The parents have {plus_minus(comparison.parent)} % test accuracy, "
        f"n = {counted(config.replicates, 'replicate')}.",
        bullet_block([*(setting.sentence for setting in comparison.settings), *refused]),
        *figures,
        table_block(comparison_table(comparison.settings), "Every method", NOTE),
        *document_foot(manifest, config, "method", seed=config.seed),
    )


def panels(comparison: Comparison) -> list[tuple[str, str]]:
    """(structure, distribution) of every figure."""
    return [
        (structure, distribution)
        for structure in comparison.config.structures
        for distribution in comparison.config.distributions
    ]


def _of(comparison: Comparison, structure: str, distribution: str) -> list[Setting]:
    return [
        setting
        for setting in comparison.settings
        if (setting.structure, setting.distribution) == (structure, distribution)
    ]


def _points(value: Estimate | None) -> str:
    return "" if value is None else half_width(value)


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{fraction:.2%}"
