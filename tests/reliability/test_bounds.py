"""No file of up to 1 MB takes more than 2 GiB or 30 seconds, whatever it claims; damaged ones are errors of ours."""

from __future__ import annotations

from pathlib import Path

import bombs
import pytest
import worst_tickets

from finished_runs import STUDIES
from tombola.errors import ConfigError, RunFolderError
from tombola.runs.configs import validate
from tombola.runs.rows import RowTable, read_rows
from tombola.studies.lottery.training_rows import SCHEMA
from tombola.studies.single.config import CompareConfig


def test_bombs_are_refused_before_they_take_memory_or_time(tmp_path: Path) -> None:
    """Each is read in a process of its own with no more memory than that; `bombs` says how each is made."""
    outcomes = bombs.read_all(tmp_path)
    assert len(outcomes) > 25
    wrong = {name: said for name, said in outcomes.items() if not said.startswith("refused: ")}
    assert not wrong
    assert not [name for name, said in outcomes.items() if "cannot build" in said]  # it was tried
    assert all(said.removeprefix("refused: ").isprintable() for said in outcomes.values())


def test_ticket_files_take_at_most_one_gibibyte(tmp_path: Path) -> None:
    """Beyond the interpreter with torch, also of address space: what is not there cannot be taken."""
    outcomes = worst_tickets.read_all(tmp_path)
    assert outcomes.keys() == worst_tickets.TESTED
    for name, (said, taken) in outcomes.items():
        assert said.startswith("refused: "), name
        assert "alloc" not in said, name  # torch's word for memory that it did not get
        assert taken < worst_tickets.MEMORY, name


def test_counts_of_strangers_are_bounded(tmp_path: Path) -> None:
    blocks = [f"block:1x{width}" for width in range(1, 102)]
    grid = {"structures": blocks, "sparsities": [number / 100 for number in range(1, 100)], "criteria": ["magnitude"]}
    assert len(validate(STUDIES["compare"] | grid, CompareConfig, "grid").methods()) == 9_999
    with pytest.raises(ConfigError, match=r"19,998 methods are more than 10,000"):
        validate(STUDIES["compare"] | grid | {"criteria": ["magnitude", "random"]}, CompareConfig, "grid")
    look = {"kind": "look", "replicate": 0, "rewind": None, "round": 0, "branch": "look"}
    RowTable(tmp_path / "rows.jsonl", ("replicate",)).append_unit([look])
    with pytest.raises(RunFolderError, match=r"line 1 is damaged \(a row of kind look: .*replicates"):
        read_rows(tmp_path / "rows.jsonl", (), SCHEMA)
