"""What you see of a search: the front, all candidates, the Pareto figure, and what came of it in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.reports.chart import Chart, Mark, Series
from tombola.reports.documents import bullet_block, document, table_block
from tombola.reports.figures import figure_html
from tombola.reports.html_tables import table_html
from tombola.reports.intervals import estimate
from tombola.reports.page import Section, bullets, copyable, listing, page
from tombola.reports.printed import png
from tombola.reports.tables import MISSING, Table
from tombola.runs.atomic import write_bytes, write_text
from tombola.runs.configs import dump_config
from tombola.runs.folder import RunFolder
from tombola.studies.base.header import document_foot, run_header
from tombola.studies.base.numbers import amount, begun, counted, percent, points, whole_percent
from tombola.studies.compress.outcome import Candidate, Search, Tested
from tombola.studies.compress.shipping import shipped_file
from tombola.studies.compress.target import TITLES, Measure, shown

SUMMARY, FIGURE, TABLE = "summary.md", "pareto.png", "candidates.csv"
FAR = 5.0
"""Points that are lost beyond which a candidate is left out of the figure, unless more is allowed."""
FEW = 3
"""Validation examples below which the allowed loss is said to be that many."""
NOTE = (
    "Lost are points of validation accuracy to the model; (chosen): the smallest that loses at most what is allowed; "
    "* on the front: no other candidate is both smaller and more accurate. Bytes are those of the file to ship: a "
    "ticket file for single weights, which sparse kernels run, else ONNX."
)


def lead(search: Search) -> str:
    """What came of it."""
    allowed = amount(100 * search.config.max_drop)
    if search.fault is not None:
        return f"The model {search.fault}, so that there is nothing to lose: train it first."
    chosen = search.chosen
    if chosen is None:
        if search.unmeasured:
            return (
                f"Undecided: {TITLES[search.measure]} of {counted(len(search.unmeasured), 'file')} not known; see why."
            )
        if search.candidates and all(one.refused is not None for one in search.candidates):
            return f"Every candidate was refused: {search.candidates[0].refused}."
        return (
            f"No candidate is smaller in {TITLES[search.measure]} and loses at most {allowed} on validation: allow "
            "more with --max-drop, or fine-tune longer."
        )
    return f"{begun(chosen.name)}: {_size(search, chosen)}. {_on_test(search.tested, allowed)}"


def in_short(search: Search) -> str:
    """The same for a list: what was chosen, its size, whether that was asked, what it loses on the test examples."""
    chosen = search.chosen
    fraction = None if chosen is None else chosen.fraction(search.measure)
    if search.fault is not None or chosen is None or fraction is None or search.tested is None:
        return lead(search)
    end = {True: "reached", False: "missed", None: "not reached as far as measured"}[search.reached]
    return (
        f"{begun(chosen.name)}: {percent(fraction)} of the {TITLES[search.measure]} ({search.config.target} {end}), "
        f"{_plain(search.tested.drop)} points lost."
    )


def _size(search: Search, chosen: Candidate) -> str:
    measure, cost, parents = search.measure, chosen.costs.of(search.measure), chosen.parent.of(search.measure)
    assert cost is not None  # it would not have been chosen
    assert parents is not None
    said = f"{_amount(measure, cost)}, {percent(cost / parents)} of the model's {shown(measure, parents)}"
    if search.reached:
        return f"{said} (asked: {search.target.most}; reached)"
    missed = "target missed" if search.reached is False else "not reached by what could be measured"
    most = search.target.most
    if search.target.is_fraction:
        most = f"{most}, {_amount(measure, search.target.limit(parents))},"
    return f"{said}; {missed}: {most} was asked"


def _amount(measure: Measure, value: float) -> str:
    """`12,300 parameters`, `51,200 bytes`, `2.1 ms`."""
    unit = f" {TITLES[measure]}" if measure in ("params", "flops") else ""
    return f"{shown(measure, value)}{unit}"


def _on_test(tested: Tested | None, allowed: str) -> str:
    if tested is None:
        return "It was not tested."
    said = (
        f"On {tested.examples:,} test examples it loses {_plain(tested.drop)} points of accuracy (95 % CI "
        f"{_plain(tested.low)} to {_plain(tested.high)}{'; below 0 it gains' if tested.drop < 0 else ''}), "
        f"{percent(tested.parent)} before and {percent(tested.accuracy)} after"
    )
    return f"{said}; {allowed} was allowed on validation."


def _plain(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def remarks(search: Search) -> list[str]:
    """What is to be known beside the outcome: what was refused, what could not be measured."""
    lines = [] if search.chosen is None else _of_chosen(search.chosen, search.config.batch)
    allowed = search.config.max_drop * search.parent["validation_examples"]
    if 0 < allowed < FEW:
        lines.append(
            f"The allowed loss is {allowed:.2g} of {search.parent['validation_examples']} validation examples."
        )
    for reason, names in _grouped([(one.refused, one.name) for one in search.candidates]).items():
        lines.append(f"Refused: {'; '.join(names)}: {reason}.")
    for reason, names in _grouped([(one.reason, one.name) for one in search.candidates]).items():
        lines.append(f"Not measured: {'; '.join(names)}: {reason}.")
    return lines


def _of_chosen(chosen: Candidate, batch: int) -> list[str]:
    """How fast the chosen one is beside the model; the layers of which hardly anything is left."""
    names = ", ".join(name.removesuffix(".weight") for name in chosen.nearly_empty)
    emptied = [f"The chosen one leaves layers nearly empty: {names}."] if names else []
    own, parents = chosen.costs.latency, chosen.parent.latency
    if own is None or parents is None:
        return emptied
    times = parents / own
    ratio = f"{times:.1f} times as fast" if times >= 1 else f"slower, by a factor of {own / parents:.1f}"
    return [
        f"{counted(batch, 'example')} in a call, one thread: {shown('latency', own)} on {chosen.engine}, the model "
        f"{shown('latency', parents)} on {chosen.parent_engine} in float32: {ratio}.",
        *emptied,
    ]


def _grouped(found: Sequence[tuple[str | None, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for reason, name in found:
        if reason is not None:
            grouped.setdefault(reason, []).append(name)
    return grouped


def front_table(search: Search) -> Table:
    """The front, from the largest down."""
    title = begun(TITLES[search.measure])
    rows = [
        (
            f"{one.name}{' (chosen)' if one is search.chosen else ''}",
            points(one.drop or 0.0),
            shown(search.measure, one.costs.of(search.measure) or 0.0),
            percent(one.fraction(search.measure) or 0.0),
        )
        for one in search.front
    ]
    return Table(("On the front", "Lost", title, "Of the model's"), rows)


def candidates_table(search: Search) -> Table:
    """Every candidate; what could not be measured is empty."""
    latencies = any(one.costs.latency is not None for one in search.candidates)
    memories = any(one.costs.memory is not None for one in search.candidates)
    rows = []
    for one in search.candidates:
        mark = " (chosen)" if one is search.chosen else " *" if one in search.front else ""
        asked = (one.structure, one.distribution or MISSING, _removed(one), one.precision + mark)
        if one.refused is not None:
            rows.append((*asked, "refused", *[""] * (3 + latencies + memories)))
            continue
        cells = [_cell("params", one.costs.params), _cell("bytes", one.costs.bytes), _cell("flops", one.costs.flops)]
        cells += [_cell("latency", one.costs.latency)] if latencies else []
        cells += [_cell("memory", one.costs.memory)] if memories else []
        rows.append((*asked, points(one.drop or 0.0), *cells))
    head = ["Structure", "Distribution", "Removed", "Precision", "Lost", "Parameters", "Bytes", "FLOPs"]
    more = ["Latency"] * latencies + ["Peak memory"] * memories
    return Table((*head, *more), rows)


def _removed(one: Candidate) -> str:
    return MISSING if one.distribution is None else whole_percent(one.sparsity)


def _cell(measure: Measure, value: float | None) -> str:
    return MISSING if value is None else shown(measure, value).removesuffix(" bytes")


def pareto_chart(search: Search) -> Chart:
    """What is lost against what is left, a line for each path and precision."""
    measure, most = search.measure, max(FAR, 300 * search.config.max_drop)
    series: dict[str, list[tuple[float, float]]] = {}
    for one in search.candidates:
        fraction = one.fraction(measure)
        if fraction is not None and one.drop is not None and one.drop <= most:
            name = ", ".join(part for part in (one.structure, one.distribution, one.precision) if part)
            series.setdefault(name, []).append((100 * fraction, one.drop))
    lines = []
    for style, (name, found) in enumerate(series.items()):
        found.sort(reverse=True)
        lines.append(Series(name, [x for x, _ in found], [estimate([y]) for _, y in found], style))
    chosen, mark = search.chosen, None
    if chosen is not None and (fraction := chosen.fraction(measure)) is not None:
        mark = Mark("chosen", 100 * fraction, chosen.drop or 0.0)
    return Chart(
        f"{begun(TITLES[measure])} left (% of the model's)",
        "Validation accuracy lost (points)",
        lines,
        ("allowed", 100 * search.config.max_drop),
        over_density=True,
        mark=mark,
    )


def _caption(search: Search) -> str:
    drawn = sum(len(line.x) for line in pareto_chart(search).series)
    left = len([one for one in search.candidates if one.refused is None]) - drawn
    beyond = (
        f" {counted(left, 'candidate')} that lose more, or have no {TITLES[search.measure]}, are not drawn."
        if left
        else ""
    )
    return f"Lower loses less, right is smaller; the ring is the chosen one.{beyond}"


def search_page(search: Search) -> str:
    """`report.html`, whole."""
    config, sections, chart = search.config, [], pareto_chart(search)
    if chart.series:
        figure = figure_html(chart, _caption(search))
        sections.append(Section("Pareto front", figure + table_html(front_table(search), "The front", NOTE)))
    table = candidates_table(search)
    copies = copyable("As CSV", table.to_csv()) + copyable("As LaTeX", table.to_latex())
    sections.append(Section("All candidates", table_html(table, "Every candidate", NOTE, grouped=True) + copies))
    if said := remarks(search):
        sections.append(Section("Refused, or not measured", bullets(said)))
    if search.kept:
        sections.append(Section("Files", bullets([f"{one.name}: {shipped_file(one)}" for one in search.kept])))
    sections.append(Section("Configuration", listing(dump_config(config), "Configuration")))
    header = run_header(f"Compression: {_title(search)}", lead(search), RunFolder(search.folder), config.seed)
    return page(header, sections)


def _title(search: Search) -> str:
    return search.folder.resolve().name.removeprefix("compress-").rpartition("-")[0] or search.config.model


def search_document(search: Search, figures_at: str = "") -> str:
    """The search as Markdown; its figure is linked below `figures_at`."""
    drawn = f"![What is lost against what is left]({figures_at}{FIGURE})"
    return document(
        f"# Compressed: {_title(search)}",
        f"**{lead(search)}**",
        *([drawn] if pareto_chart(search).series else []),
        table_block(front_table(search), "The front", NOTE),
        *([bullet_block(remarks(search))] if remarks(search) else []),
        table_block(candidates_table(search), "Every candidate", NOTE),
        *document_foot(RunFolder(search.folder).read_manifest(), search.config, "path", seed=search.config.seed),
    )


def write_beside(folder: RunFolder, search: Search) -> None:
    """The summary, the table and the figure, beside the page."""
    write_text(folder.root / SUMMARY, search_document(search))
    write_text(folder.root / TABLE, candidates_table(search).to_csv())
    chart = pareto_chart(search)
    if chart.series:
        write_bytes(folder.root / FIGURE, png(chart))
