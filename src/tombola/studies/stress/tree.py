"""The files that users of stress evaluations look for, by the names that they know, beside the report."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from tombola.runs.atomic import TEMPORARY_SUFFIX, make_folder, storage_errors, write_json, write_text
from tombola.runs.folder import RunFolder
from tombola.runs.rows import Row
from tombola.studies.stress.cells import CellKey
from tombola.studies.stress.config import StressConfig
from tombola.studies.stress.living.keeping import MODEL
from tombola.studies.stress.outcome.programs import as_json, experiment_summaries
from tombola.studies.stress.outcome.summarised import Stress
from tombola.studies.stress.shown.figures import write_figures
from tombola.studies.stress.shown.journal import JOURNAL
from tombola.studies.stress.shown.journal_summary import summary
from tombola.studies.stress.shown.places import OWN, cell_folder

RESULTS, SUMMARIES = "pruning_stress_results.json", "experiment_summaries.json"
SUMMARY = "entropy_journal_summary.md"
_META = {"model": "meta_model", "draw": "meta_draw", "remedy": "meta_remedy", "seed": "meta_seed"}


def gather(folder: RunFolder, result: Stress) -> None:
    """Puts what cells left on disk into its place: journals of one strategy and level into one, and models."""
    for root, keys in _homes(folder, result):
        _gather_journals(root / JOURNAL, keys, folder.checkpoints)
        for key in keys:
            _move_model(folder.checkpoints / key.name / MODEL, root / MODEL / key.name)


def write_tree(folder: RunFolder, result: Stress) -> None:
    """Writes all that is made of rows and journals."""
    for root, _ in _homes(folder, result):
        if (root / JOURNAL).exists():
            write_text((root / JOURNAL).with_name(SUMMARY), summary(root / JOURNAL))
    write_figures(folder.root, result, protocol_of(result.config))
    write_json(folder.root / SUMMARIES, experiment_summaries(result))
    write_json(folder.root / RESULTS, as_json(result))


def protocol_of(config: StressConfig) -> str:
    """What names of folders begin with."""
    return OWN if config.tasks is not None else config.protocol


def _homes(folder: RunFolder, result: Stress) -> Iterator[tuple[Path, list[CellKey]]]:
    """The folder of every strategy and level, and the cells that it is of."""
    found: dict[Path, list[CellKey]] = {}
    for life in result.lives:
        place = cell_folder(folder.root, protocol_of(result.config), (life.key.strategy, life.key.level))
        found.setdefault(place, []).append(life.key)
    yield from found.items()


def _gather_journals(path: Path, keys: Sequence[CellKey], checkpoints: Path) -> None:
    """In the order of cells; those of earlier replicates are there already. Done again, it comes to the same file."""
    parts = {key: sorted((checkpoints / key.name).glob("journal-*.jsonl")) for key in keys}
    if not any(parts.values()):
        return
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    with storage_errors("write", path), temporary.open("w", encoding="utf-8") as file:
        if path.exists():
            fresh = {_identity(key) for key, files in parts.items() if files}
            with path.open(encoding="utf-8") as old:
                file.writelines(line for line in old if _who(json.loads(line)) not in fresh)
        for files in parts.values():
            for part in files:
                with part.open(encoding="utf-8") as lines:
                    shutil.copyfileobj(lines, file)
        _sync(file)
        temporary.replace(path)


def _sync(file: IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _identity(key: CellKey) -> tuple[object, ...]:
    return tuple(getattr(key, name) for name in _META)


def _who(line: Row) -> tuple[object, ...]:
    return tuple(line[name] for name in _META.values())


def _move_model(source: Path, target: Path) -> None:
    if source.exists():
        with storage_errors("write", target):
            shutil.rmtree(target, ignore_errors=True)
            make_folder(target.parent)
            source.replace(target)
