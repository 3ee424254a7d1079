"""The files of a stress study beside its page: figures and histories, by the names that its users know."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from tombola.reports.grid import Grid
from tombola.reports.printed import png, sheet
from tombola.runs.atomic import make_folder, write_bytes, write_json, write_text
from tombola.studies.stress.outcome.groups import Group, GroupKey
from tombola.studies.stress.outcome.lives import Life
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
from tombola.studies.stress.shown.eeg import eeg, entropy_map
from tombola.studies.stress.shown.histories import function_history, metrics_history
from tombola.studies.stress.shown.journal_summary import summary_of
from tombola.studies.stress.shown.journal_survey import Journal
from tombola.studies.stress.shown.places import (
    Cell,
    cell_folder,
    cells_of,
    comparison_folder,
    ending,
    journals_of,
    over_seeds_note,
    slug,
    titled,
)
from tombola.studies.stress.shown.timelines import (
    function_charts,
    named,
    over_seeds_chart,
    probe_chart,
    spans_of,
    time_series,
)

COMPARED = {
    "recovery_rate_comparison": ("avg_recovery_rate", "recovery_alone"),
    "forgetting_rate_comparison": ("avg_forgetting_rate", "forgetting"),
    "performance_comparison": ("performance_nats", "performance_accuracy"),
}
"""Files, and the metrics that each shows: a rate beside its control or its unit."""
SHORT_NAME = 12
"""Characters of a strategy's name, with its remedy, that leave room for four maps of one level side by side."""
WIDE = 183.0
"""Millimetres: two columns of a page."""


def write_figures(
    folder: Path, result: Stress, protocol: str, journals: Mapping[Cell, Journal] | None = None
) -> list[Path]:
    """Writes every figure and history of a study; what is there is replaced.

    Args:
        folder: the study's output folder.
        result: what it came to.
        protocol: begins the names of folders.
        journals: its entropy journals, if they were read already.

    Returns:
        The files, in the order in which they were written.

    Raises:
        RunFolderError: an entropy journal is damaged.
        StorageError: a file cannot be written.
    """
    found = journals_of(result, protocol) if journals is None else journals
    files: list[Path] = []
    if result.strategies:
        files += _comparisons(comparison_folder(folder, protocol), result)
    for cell, groups in cells_of(result).items():
        files += _of_cell(cell_folder(folder, protocol, cell), result, groups, found.get(cell))
    return files


def _comparisons(folder: Path, result: Stress) -> list[Path]:
    make_folder(folder)
    files = []
    for name, metrics in COMPARED.items():
        panels = [comparison(result, metric) for metric in metrics]
        said = [*([RECOVERED] if "avg_recovery_rate" in metrics else []), over_seeds_note(result, "Bars")]
        notes = [line for note in [" ".join(said), *missing_notes(panels)] for line in _wrapped(note)]
        height = 2 * (20 + 3.4 * len(panels[0].places) * max(1, len(panels[0].series))) + 4 * len(notes)
        files.append(_write(folder / f"{name}.png", sheet([[one] for one in panels], (WIDE, height), notes)))
    for model in result.models:
        end = "" if model == result.models[0] else f"-{slug(model)}"
        grids = [grid(result, model, metric) for metric in HEATMAPS]
        short = len(result.levels) == 1 and max(map(len, grids[0].rows)) <= SHORT_NAME
        each = 4 if short else 2
        rows = [grids[at : at + each] for at in range(0, len(grids), each)]
        height = len(rows) * (27 + 11.0 * len(grids[0].rows))
        files.append(_write(folder / f"heatmaps{end}.png", sheet(rows, (WIDE, height), _empty(result, grids))))
        charts = [[probe_chart(result, model, level)] for level in result.levels]
        files.append(_write(folder / f"plasticity{end}.png", sheet(charts, (WIDE, 70.0 * len(charts)))))
    return files


def colours_note(result: Stress) -> str:
    """What the colours of heatmaps say."""
    several = "± is half a 95 % interval over seeds."
    beside = several if len(result.seeds) > 1 else "One seed: a difference may be chance."
    return f"Coloured around the dense network: blue is better, orange worse. {beside}"


def _empty(result: Stress, grids: Sequence[Grid]) -> list[str]:
    reasons = dict.fromkeys(reason for one in grids for reason in one.reasons)
    return [colours_note(result), *(f"Hatched: {reason}." for reason in reasons)]


def _of_cell(folder: Path, result: Stress, groups: Sequence[Group], journal: Journal | None) -> list[Path]:
    make_folder(folder / "visualizations")
    files = [_json(folder / "metrics_history.json", metrics_history(groups))]
    if function := function_history(groups):
        make_folder(folder / "function_tracking")
        files.append(_json(folder / "function_tracking" / "function_history.json", function))
    for group in groups:
        files += _of_group(folder, result, group)
    return files + ([] if journal is None else _of_journal(folder, result, groups, journal))


def _of_group(folder: Path, result: Stress, group: Group) -> list[Path]:
    end, first = ending(result, group.key), group.lives[0]
    whose = f"{titled(result, group.key)}, {life_name(first)}"
    series = [[time_series(first, whose)], [over_seeds_chart(group, f"all seeds (n = {len(group.seeds)})")]]
    radar, dots = profiles(named(result, [group]), titled(result, group.key))
    files = [
        _write(folder / "visualizations" / f"time_series{end}.png", sheet(series, (WIDE, 190.0))),
        _write(
            folder / "visualizations" / f"radar{end}.png",
            sheet([[radar, dots]], (WIDE, 110.0), _wrapped(" ".join([radar_note(), *missing_notes([dots])]))),
        ),
    ]
    if charts := function_charts(named(result, [group])):
        rows = [charts[at : at + 2] for at in range(0, len(charts), 2)]
        files.append(_write(folder / "function_tracking" / f"function{end}.png", sheet(rows, (WIDE, 60.0 * len(rows)))))
    return files


def life_name(life: Life) -> str:
    """`seed 0`, with its draw where a seed may have several."""
    return f"seed {life.key.seed}" + (f", draw {life.key.draw}" if life.key.strategy == "random" else "")


def _of_journal(folder: Path, result: Stress, groups: Sequence[Group], journal: Journal) -> list[Path]:
    tracking = folder / "entropy_tracking"
    make_folder(tracking / "visualizations")
    files = [_text(tracking / "entropy_journal_summary.md", summary_of(journal.surveys, folder.name))]
    life = life_of(groups, journal)
    if journal.courses:
        title = "" if life is None else f"{titled(result, group_key(groups, life))}, {life_name(life)}"
        drawn = eeg(journal.courses, [] if life is None else spans_of(life), title)
        height = 40 + 3.4 * len(journal.courses)
        files.append(_write(tracking / "visualizations" / "eeg.png", png(drawn, (WIDE, height))))
    for one in journal.surveys:
        end = ending(result, groups[0].key._replace(model=one.model, remedy=one.remedy))
        drawn_map = entropy_map(one, MAP_TITLE)
        height = 34 + 8.0 * len(drawn_map.rows)
        files.append(_write(tracking / "visualizations" / f"entropy_heatmap{end}.png", png(drawn_map, (WIDE, height))))
    return files


MAP_TITLE = (
    "Mean entropy in the last cycle, of its maximum\nblue: more diffuse than the mean head, orange: more focused; "
    "hatched: removed"
)


def life_of(groups: Sequence[Group], journal: Journal) -> Life | None:
    """The life of a journal's courses."""
    if journal.first is None:
        return None
    model, remedy, seed, draw = journal.first
    return next(
        (
            life
            for group in groups
            for life in group.lives
            if (life.key.model, life.key.remedy, life.key.seed, life.key.draw) == (model, remedy, seed, draw)
        ),
        None,
    )


def group_key(groups: Sequence[Group], life: Life) -> GroupKey:
    """The key of the group that a life is of."""
    return next(group.key for group in groups if life in group.lives)


def _wrapped(text: str, width: int = 150) -> list[str]:
    return textwrap.wrap(text, width)


def _write(path: Path, content: bytes) -> Path:
    write_bytes(path, content)
    return path


def _text(path: Path, content: str) -> Path:
    write_text(path, content)
    return path


def _json(path: Path, content: object) -> Path:
    write_json(path, content)
    return path
