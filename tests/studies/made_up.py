"""A stress study in a folder, made up: rows, journals of entropy and a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from journals import entries, write_journal

from stress_rows import stress_rows
from tombola.runs.configs import Config
from tombola.runs.folder import LAYOUT
from tombola.runs.sealed import write_sealed
from tombola.studies.stress.outcome.result import Stress
from tombola.studies.stress.outcome.summarised import summarise
from tombola.studies.stress.shown.journal import JOURNAL
from tombola.studies.stress.shown.places import cell_folder

SMALL: dict[str, Any] = {"levels": (0.3,), "tasks": ("german", "names"), "seeds": 2, "draws": 2}


class Asked(Config):
    """What figures and pages know of a config."""

    protocol: str = "diverse"
    seed: int = 42


def study(folder: Path, journals: tuple[str, ...] = (), without: tuple[str, ...] = (), **asked: Any) -> Stress:
    """A finished study; `journals` names strategies that have one at every level, `without` those that were not run."""
    folder.mkdir(parents=True, exist_ok=True)
    write_sealed(folder / "manifest.json", {"layout": LAYOUT, "must_match": {"study": "stress"}})
    rows = [row for row in stress_rows(**(SMALL | asked)) if row["strategy"] not in without]
    result = summarise(folder, Asked(), rows)
    for strategy in journals:
        for level in result.levels:
            path = cell_folder(folder, "diverse", (strategy, level)) / JOURNAL
            write_journal(path, entries(seeds=2, cycles=2, gap=10))
    return result
