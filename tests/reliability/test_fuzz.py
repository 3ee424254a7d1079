"""Damaged files of every kind are read, or refused by an error of ours."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import fuzz_readers


def test_damaged_files_are_read_or_refused() -> None:
    """A short run of `make fuzz`."""
    lines, problem = fuzz_readers.fuzz(700, seed=7)
    assert not problem
    assert len(lines) > 20
    assert all(line["read"] < line["mutations"] for line in lines if line["mutations"] > 10)
