"""No file of up to 1 MB takes more than 2 GiB or 30 seconds, whatever it claims; damaged ones are errors of ours."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import bombs


def test_bombs_are_refused_before_they_take_memory_or_time(tmp_path: Path) -> None:
    """Each is read in a process of its own with no more memory than that; `bombs` says how each is made."""
    outcomes = bombs.read_all(tmp_path)
    assert len(outcomes) > 25
    wrong = {name: said for name, said in outcomes.items() if not said.startswith("refused: ")}
    assert not wrong
    assert not [name for name, said in outcomes.items() if "cannot build" in said]  # it was tried
    assert all(said.removeprefix("refused: ").isprintable() for said in outcomes.values())
