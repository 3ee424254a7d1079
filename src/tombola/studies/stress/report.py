"""`report.html` of a stress study: what was found on one screen, then the figures and tables that it stands on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tombola.reports.figures import figure_html
from tombola.reports.html_tables import table_html
from tombola.reports.page import Section, bullets, copyable, folded, listing, page, paragraphs, titled
from tombola.reports.tables import Table
from tombola.runs.configs import dump_config
from tombola.runs.folder import RunFolder
from tombola.studies.base.header import run_header
from tombola.studies.stress.outcome.answers import answers
from tombola.studies.stress.outcome.groups import REFERENCES, Group
from tombola.studies.stress.outcome.remarks import remarks
from tombola.studies.stress.outcome.result import Stress
from tombola.studies.stress.shown.comparisons import (
    HEATMAPS,
    RECOVERED,
    comparison,
    grid,
    missing_notes,
    profiles,
    radar_note,
)
from tombola.studies.stress.shown.conclusions import check_lines, how_lines, lead, plasticity_line
from tombola.studies.stress.shown.eeg import eeg, entropy_map
from tombola.studies.stress.shown.figures import MAP_TITLE, colours_note, life_name, life_of
from tombola.studies.stress.shown.journal_summary import SCALE, lines_of
from tombola.studies.stress.shown.journal_survey import Journal
from tombola.studies.stress.shown.places import OWN, Cell, cells_of, groups_at, journals_of, over_seeds_note
from tombola.studies.stress.shown.places import titled as group_title
from tombola.studies.stress.shown.result_tables import (
    CYCLES_NOTE,
    OVERVIEW_NOTE,
    TASKS_NOTE,
    cycles_table,
    function_table,
    glossary_table,
    null_lines,
    overview_table,
    tasks_table,
)
from tombola.studies.stress.shown.timelines import (
    function_charts,
    named,
    over_seeds_chart,
    probe_chart,
    search_chart,
    spans_of,
    time_series,
)

SHOWN = 4
"""Heatmaps that are not folded."""
POINTS = 150
"""Of a trace on the page; the file eeg.png has more."""
SERIES_NOTE = (
    "One network's held-out loss on every task, looks within phases among them (of a few items; all points are of the "
    "same). Shaded bands are phases, by the task that is learned."
)
RIBBONS_NOTE = (
    "Over seeds, whose tasks come in orders of their own: means of the whole held-out sets at the end of each phase."
)
FUNCTION_NOTE = (
    "After the last cycle, against the unpruned model that was not trained further; the floors say what such numbers "
    "are worth: a likeness near that of a network whose heads are all off is none. CKA can be high by itself."
)


def stress_page(result: Stress, protocol: str, journals: Mapping[Cell, Journal] | None = None) -> str:
    """The page, whole.

    Args:
        result: what the study came to.
        protocol: which tasks it has; begins the names of folders.
        journals: its entropy journals, if they were read already.

    Raises:
        RunFolderError: an entropy journal is damaged.
    """
    read = journals_of(result, protocol) if journals is None else journals
    sections = [
        Section("What was found", _findings(result)),
        *([Section("Plasticity", _plasticity(result))] if result.strategies else []),
        Section("Strategies and levels", _overview(result)),
        *([Section("Profiles", _profiles(result))] if result.strategies else []),
        Section("Scores over time", _timelines(result)),
        *_search_sections(result),
        *([Section("Entropy of attention", _entropy(result, read))] if read else []),
        *_function_sections(result),
        Section("Every task", _folded_table(tasks_table(result), "Every task", TASKS_NOTE)),
        Section("Every cycle", _folded_table(cycles_table(result), "Every cycle", CYCLES_NOTE)),
        Section("What each metric means", folded("Formulas, units and directions", _glossary())),
        Section("How it was run", bullets([*check_lines(result.rows), *how_lines(result)])),
        Section("Configuration", folded("All of it", listing(dump_config(result.config), "Configuration"))),
    ]
    title = f"Stress study: {', '.join(result.models)}, {'own' if protocol == OWN else protocol} tasks"
    seed = getattr(result.config, "seed", None)
    header = run_header(title, lead(result), RunFolder(result.folder), seed, len(result.seeds))
    return page(header, sections)


def _findings(result: Stress) -> str:
    """The five answers, and what must be known beside them."""
    asked = "".join(titled(one.question, paragraphs([one.sentence])) for one in answers(result))
    topics: dict[str, list[str]] = {}
    for one in remarks(result):
        topics.setdefault(one.question, []).append(one.sentence)
    beside = "".join(titled(topic, paragraphs(said)) for topic, said in topics.items())
    return asked + (folded("What must be known beside: floors, controls, remedies", beside) if beside else "")


def _plasticity(result: Stress) -> str:
    charts = [(model, level, probe_chart(result, model, level)) for model in result.models for level in result.levels]
    charts = [one for one in charts if one[2].series]
    said = paragraphs([plasticity_line(result)])
    if not charts:
        return said
    caption = (
        "Loss of a copy after its steps on a held-out language: less is learned where it rises. "
        f"{over_seeds_note(result, 'Bands')}"
    )
    shown, *others = sorted(charts, key=lambda one: one[1] != _middle(result))
    more = "".join(folded(chart.title, figure_html(chart, caption)) for _, _, chart in others)
    onsets = [f"{result.name(key)}: {group.plasticity.onset.sentence}." for key, group in result.groups.items()]
    return said + figure_html(shown[2], f"{shown[2].title}. {caption}") + more + folded("By group", bullets(onsets))


def _middle(result: Stress) -> float:
    """The level that is shown unfolded."""
    return result.levels[len(result.levels) // 2]


def _overview(result: Stress) -> str:
    table = overview_table(result)
    parts = [table_html(table, "Every strategy and level", OVERVIEW_NOTE)]
    parts.append(copyable("As CSV", table.to_csv()) + copyable("As LaTeX", table.to_latex()))
    if said := null_lines(result):
        parts.append(folded("Why numbers are missing", bullets(said)))
    for model in result.models if result.strategies else ():
        grids = [grid(result, model, metric) for metric in HEATMAPS]
        grids = [one for one in grids if any(cell.value is not None for row in one.cells for cell in row)]
        reasons = dict.fromkeys(reason for one in grids for reason in one.reasons)
        hatched = "".join(f" Hatched: {reason}." for reason in reasons)
        caption = f"{colours_note(result)}{hatched}"
        first, others = grids[:SHOWN], grids[SHOWN:]
        shown = figure_html(first, caption) if first else ""
        shown += folded("More heatmaps", figure_html(others, caption)) if others else ""
        parts.append(shown if len(result.models) == 1 else titled(model, shown))
    for metric in ("performance_nats", "avg_recovery_rate", "avg_forgetting_rate") if result.strategies else ():
        dots = comparison(result, metric)
        above = [RECOVERED] if metric == "avg_recovery_rate" else []
        note = " ".join([*above, over_seeds_note(result, "Bars"), *missing_notes([dots])])
        parts.append(folded(dots.x_title, figure_html(dots, note)))
    return "".join(parts)


def _profiles(result: Stress) -> str:
    parts: list[str] = []
    for level in sorted(result.levels, key=lambda level: level != _middle(result)):
        for model in result.models:
            groups = groups_at(result, model, level)
            if not groups:
                continue
            radar, dots = profiles(named(result, groups), f"{100 * level:g}% removed")
            shown = figure_html([radar, dots], " ".join([radar_note(), *missing_notes([dots])]))
            title = f"{model}, {100 * level:g}% removed" if len(result.models) > 1 else f"{100 * level:g}% removed"
            parts.append(folded(title, shown) if parts else titled(title, shown))
    return "".join(parts)


def _timelines(result: Stress) -> str:
    parts = []
    for key, group in result.groups.items():
        ribbons = over_seeds_chart(group)
        one = time_series(group.lives[0])
        if not one.series:
            continue
        whose = f"{group_title(result, key)}, {life_name(group.lives[0])}"
        body = figure_html(one, f"{whose}. {SERIES_NOTE}")
        if ribbons.series:
            body += figure_html(ribbons, f"{RIBBONS_NOTE} {over_seeds_note(result, 'Ribbons')}")
        parts.append(folded(group_title(result, key), body))
    return "".join(parts)


def _search_sections(result: Stress) -> list[Section]:
    """What each controller of a search was rewarded with."""
    chart = search_chart(result.rows)
    caption = "Mean reward of all pulls so far: a search is worth its effort where it ends above random choices."
    said = paragraphs([one.sentence for one in remarks(result) if one.question == "Search"])
    return [] if chart is None else [Section("Search", said + figure_html(chart, caption))]


def _entropy(result: Stress, journals: Mapping[Cell, Journal]) -> str:
    cells = cells_of(result)
    return paragraphs([SCALE]) + "".join(
        folded(_cell_title(cell), _of_journal(cells[cell], journal))
        for cell, journal in journals.items()
        if journal.surveys
    )


def _cell_title(cell: Cell) -> str:
    name = cell[0].replace("_", " ")
    return name if cell[0] in REFERENCES else f"{name}, {100 * cell[1]:g}%"


def _of_journal(groups: Sequence[Group], journal: Journal) -> str:
    life = life_of(groups, journal)
    first = journal.surveys[0]
    said = bullets(lines_of(first))
    whose = "one network" if life is None else life_name(life)
    traces = eeg(journal.courses, [] if life is None else spans_of(life), "", POINTS)
    caption = (
        f"EEG of {whose}: a trace for every head (layer.head, by colour of the layer), entropy in standard deviations "
        "from its own mean over global steps; a cross where a head was removed."
    )
    return said + figure_html(traces, caption) + figure_html(entropy_map(first, ""), MAP_TITLE.replace("\n", "; "))


def _function_sections(result: Stress) -> list[Section]:
    table = function_table(result)
    if table is None:
        return []
    parts = [table_html(table, "Likeness to the unpruned model", FUNCTION_NOTE)]
    for level in result.levels:
        for model in result.models:
            groups = groups_at(result, model, level)
            if charts := function_charts(named(result, groups)) if groups else []:
                title = f"Over cycles: {model}, {100 * level:g}% removed"
                caption = f"{title}. {over_seeds_note(result, 'Bands')}"
                parts.append(folded(title, figure_html(charts, caption, wide=True)))
    return [Section("Function preserved", "".join(parts))]


def _folded_table(table: Table, caption: str, note: str) -> str:
    shown = table_html(table, caption, note)
    return shown if shown.startswith("<details") else folded(caption, shown)


def _glossary() -> str:
    return table_html(glossary_table(), "What each metric means")
