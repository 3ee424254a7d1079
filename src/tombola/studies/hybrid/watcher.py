"""Whom a hybrid study tells what happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tombola.runs.rows import Row


@dataclass(frozen=True)
class Watcher:
    """Functions that are told what is about to run, and each unit that ends.

    `begin(total, done)` counts units, those of earlier calls in `done`; `unit` gets a row of the unit that ended, or
    its name; `measuring(done, total)` counts the calls whose latency is measured at the end.
    """

    begin: Callable[[int, int], None]
    unit: Callable[[Row | str], None]
    measuring: Callable[[int, int], None]
