"""Whom a hybrid study tells what happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tombola.runs.rows import Row
from tombola.studies.hybrid.outlook import Outlook


@dataclass(frozen=True)
class Watcher:
    """Functions that are told what is about to run, and each unit that ends.

    `planned` gets what a new study will run, before it does; `begin(total, done)` counts units, those of earlier calls
    in `done`; `unit` gets a row of the unit that ended; `measuring(done, total)` counts the ways whose kernels are
    chosen, and whose latency is measured after that.
    """

    planned: Callable[[Outlook], None]
    begin: Callable[[int, int], None]
    unit: Callable[[Row], None]
    measuring: Callable[[int, int], None]
