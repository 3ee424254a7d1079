"""docs/architecture.md is true: each module stands in the table of its room, and what stands there exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "tombola"
TABLES = re.findall(
    r"\| where \| what \|\n\| --- \| --- \|\n((?:\|.*\n)+)", (ROOT / "docs" / "architecture.md").read_text()
)
NAMED = {name.rstrip("/") for table in TABLES for name in re.findall(r"`([^`]+)`", table)}
IN_ONE_WORD = {"criteria", "controls"}
"""Folders whose files are all of a kind: the folder's name says what they are."""


def modules() -> dict[str, Path]:
    """Every module by its name, but those at the top, which the page shows with the rooms."""
    return {
        path.stem: path
        for path in SOURCE.rglob("*.py")
        if not path.stem.startswith("__") and path.parent != SOURCE and path.parent.name not in IN_ONE_WORD
    }


def test_every_module_is_in_its_rooms_table() -> None:
    assert len(TABLES) >= 7
    missing = {str(path.relative_to(SOURCE)) for stem, path in modules().items() if not {stem, path.name} & NAMED}
    assert not missing


def test_what_is_named_exists() -> None:
    folders = {path.name for path in SOURCE.rglob("*") if path.is_dir()}
    known = {*modules(), *folders, *(path.name for path in modules().values())}
    said = {"sparsify", "list", "show", "report", "tombola configs", "fit"}  # functions and commands
    assert not {name for name in NAMED if name not in known | said and "/" not in name}
