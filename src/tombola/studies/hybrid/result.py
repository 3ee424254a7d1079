"""A hybrid study read back: its rows, its lotteries and where it lies. Nothing here trains, measures or writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tombola.runs.folder import RunFolder
from tombola.runs.rows import Row
from tombola.studies.lottery.result import Result

if TYPE_CHECKING:
    from tombola.studies.hybrid.config import HybridConfig


@dataclass(frozen=True)
class HybridResult:
    """The rows of a study, and the lotteries it stands on by name.

    `lotteries` has `cnn` (a VGG, all layers pruned) and perhaps `head` (a dense head on the cached features of a
    frozen base) and `lenet`. What was not run is not in it.
    """

    folder: RunFolder
    config: HybridConfig
    rows: list[Row]
    lotteries: dict[str, Result]
