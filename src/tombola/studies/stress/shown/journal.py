"""Entropy journals: how diffuse every attention head looked, step by step, read line by line as it was streamed.

A journal may be hundreds of megabytes: nothing here holds more of it than was asked for. What one comes to is in
`journal_survey`.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from tombola.errors import RunFolderError, in_line
from tombola.runs.atomic import opened, storage_errors
from tombola.runs.strict_json import parse_json

LONGEST_LINE = 64 << 10
"""Bytes of an entry; one has about three hundred."""
JOURNAL = Path("entropy_tracking") / "entropy_journal.jsonl"
"""Within the folder of a strategy and a level."""
Head = tuple[int, int]
"""Layer and head, both from 0."""


class OneLife(NamedTuple):
    """One network's life within a journal, which is of one strategy and level."""

    model: str
    remedy: str
    seed: int
    draw: int


class Entry(NamedTuple):
    """The entropy of one head at one global step, as a fraction of its maximum; None of a head that is gone."""

    cycle: int
    cycle_name: str
    head: Head
    entropy: float | None
    kept: bool
    step: int
    phase: int
    task: str | None
    life: OneLife


def read_journal(path: Path) -> Iterator[Entry]:
    """Every entry of a journal in the order in which they were written; one line is in memory at a time.

    Args:
        path: an `entropy_journal.jsonl`. A last line without its end, which a kill may leave, is left out.

    Raises:
        RunFolderError: a line is no entry, or its entropy is not within [0, 1]; it is said which line.
        StorageError: the file cannot be read.
    """
    with storage_errors("read", path), opened(path) as file:
        for number in count(1):
            line = file.readline(LONGEST_LINE + 1)
            if not line.endswith(b"\n"):
                if len(line) > LONGEST_LINE:
                    raise _damaged(path, number, f"more than {LONGEST_LINE:,} bytes")
                return
            yield _entry(path, number, line)


def _entry(path: Path, number: int, line: bytes) -> Entry:
    try:
        found = parse_json(line)
        if not isinstance(found, dict):
            raise ValueError("no object")
        return Entry(
            _whole(found, "cycle_idx"),
            _text(found, "cycle_name"),
            (_whole(found, "layer_idx"), _whole(found, "head_idx")),
            _entropy(found),
            _gate(found),
            _whole(found, "meta_step"),
            _whole(found, "meta_phase"),
            None if found["meta_task"] is None else _text(found, "meta_task"),
            OneLife(
                _text(found, "meta_model"),
                _text(found, "meta_remedy"),
                _whole(found, "meta_seed"),
                _whole(found, "meta_draw"),
            ),
        )
    except KeyError as missing:
        raise _damaged(path, number, f"without {missing.args[0]}") from None
    except ValueError as wrong:
        raise _damaged(path, number, str(wrong)) from None


def _whole(found: dict[str, Any], name: str) -> int:
    value = found[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} is no whole number from 0 on")
    return value


def _text(found: dict[str, Any], name: str) -> str:
    value = found[name]
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value


def _entropy(found: dict[str, Any]) -> float | None:
    value = found["entropy"]
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError("entropy is no number")
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"entropy {value:g} is not within 0 and 1")
    return float(value)


def _gate(found: dict[str, Any]) -> bool:
    value = found["gate_value"]
    if value not in (0, 1):
        raise ValueError("gate_value is neither 0 nor 1")
    return bool(value)


def _damaged(path: Path, number: int, reason: str) -> RunFolderError:
    return RunFolderError(
        f"{in_line(path)}: line {number} is damaged ({reason}); put the file back from a copy, or delete it and the "
        "figures of the journal with it"
    )


@dataclass
class Course:
    """One head over global steps: where its entropy was taken while it was kept, and where it was found removed."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    entropies: array[float] = field(default_factory=lambda: array("f"))
    removed: int | None = None

    def add(self, entry: Entry) -> None:
        """Takes an entry; of a step that comes twice the later one holds."""
        if not entry.kept:
            self.removed = entry.step if self.removed is None else self.removed
        elif entry.entropy is not None:
            if self.steps and self.steps[-1] == entry.step:
                self.entropies[-1] = entry.entropy
            elif not self.steps or self.steps[-1] < entry.step:
                self.steps.append(entry.step)
                self.entropies.append(entry.entropy)
