"""Where the files of a stress study lie, by the names that its users know, and what its networks are called there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tombola.studies.stress.outcome.groups import REFERENCES, UNTREATED, Group, GroupKey
from tombola.studies.stress.outcome.result import Stress
from tombola.studies.stress.shown.journal import JOURNAL
from tombola.studies.stress.shown.journal_survey import Journal, gathered

OWN = "tasks"
"""What folders of a user's own tasks begin with."""
Cell = tuple[str, float]
"""A strategy and a level: all models, remedies, seeds and draws of both share a folder."""


def cell_folder(root: Path, protocol: str, cell: Cell) -> Path:
    """The folder of a strategy at a level.

    Examples:
        >>> cell_folder(Path("out"), "diverse", ("entropy", 0.3)).name
        'diverse_entropy_0.3'
    """
    return root / f"{protocol}_{cell[0]}_{cell[1]:g}"


def comparison_folder(root: Path, protocol: str) -> Path:
    """The folder of what compares them."""
    return root / f"{protocol}_comparison"


def cells_of(result: Stress) -> dict[Cell, list[Group]]:
    """The groups of every strategy and level, in the order of the groups."""
    found: dict[Cell, list[Group]] = {}
    for key, group in result.groups.items():
        found.setdefault((key.strategy, key.level), []).append(group)
    return found


def journals_of(result: Stress, protocol: str) -> dict[Cell, Journal]:
    """Every entropy journal that there is, read once.

    Raises:
        RunFolderError: a journal is damaged.
    """
    paths = {cell: cell_folder(result.folder, protocol, cell) / JOURNAL for cell in cells_of(result)}
    return {cell: gathered(path) for cell, path in paths.items() if path.exists()}


def groups_at(result: Stress, model: str, level: float) -> list[Group]:
    """What was pruned of a model to a level: every strategy, with every remedy."""
    return [
        group
        for key, group in result.groups.items()
        if (key.model, key.level) == (model, level) and not key.is_reference
    ]


def label(key: GroupKey) -> str:
    """What a strategy is called in figures, with its remedy, without its level: `entropy`, `dense, reset dormant`."""
    remedy = "" if key.remedy == UNTREATED else f", {key.remedy.replace('_', ' ')}"
    return f"{key.strategy.replace('_', ' ')}{remedy}"


def titled(result: Stress, key: GroupKey) -> str:
    """A group in words: `entropy, 30%`, with its model where there are several."""
    level = "" if key.strategy in REFERENCES else f", {100 * key.level:g}%"
    model = f"{key.model}: " if len(result.models) > 1 else ""
    return f"{model}{label(key)}{level}"


def ending(result: Stress, key: GroupKey) -> str:
    """What a file's name gets where several models or remedies share a folder; nothing for the first model alone."""
    model = [] if key.model == result.models[0] else [slug(key.model)]
    remedy = [] if key.remedy == UNTREATED else [key.remedy]
    return "".join(f"-{part}" for part in (*model, *remedy))


def slug(name: str) -> str:
    """A model's name as a part of a file's.

    Examples:
        >>> slug("facebook/opt-125m")
        'facebook-opt-125m'
    """
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "model"


def over_seeds_note(result: Stress, what: str) -> str:
    """`Bands are 95 % intervals over 3 seeds.`"""
    if len(result.seeds) < 2:
        return "One seed, so that there are no intervals."
    return f"{what} are 95 % intervals over {len(result.seeds)} seeds."


def percents(levels: Iterable[float]) -> list[str]:
    """`10%`, `30%`."""
    return [f"{100 * level:g}%" for level in levels]
