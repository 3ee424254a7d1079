"""What gate rows come to: accuracy against mean cost over replicates, and the thresholds that they chose.

Every replicate has its own thresholds, and perhaps its own features. Curves are pooled at equal fractions of examples
that leave early, between two thresholds in a straight line: a coin that picks one of the two would do as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tombola.reports.intervals import Estimate, estimate
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.numbers import listed
from tombola.studies.hybrid.units import NETWORK

LEVELS = 21
"""Fractions of early leavers at which curves are pooled."""


@dataclass(frozen=True)
class Gate:
    """The test rows of one gate, every threshold of every replicate."""

    network: str
    exit: str
    rows: tuple[Row, ...]

    @property
    def features(self) -> str:
        """The replicates' own best on validation."""
        return listed(sorted({row["features"] for row in self.rows}), "or")

    @property
    def chosen(self) -> list[Row]:
        """One row for each replicate: at the threshold that it chose on validation."""
        return rows_of(self.rows, chosen=True)

    def curve(self) -> list[tuple[float, Estimate]]:
        """Mean FLOPs of an example and accuracy in percent, by rising fraction of examples that leave early."""
        replicates = [
            sorted(rows_of(self.rows, replicate=index), key=lambda row: row["left"])
            for index in sorted({row["replicate"] for row in self.rows})
        ]
        least, most = max(own[0]["left"] for own in replicates), min(own[-1]["left"] for own in replicates)
        points = []
        for level in np.unique(np.linspace(least, max(least, most), LEVELS)):
            flops, accuracy = ([_at(level, own, column) for own in replicates] for column in ("flops", "accuracy"))
            points.append((estimate(flops).mean, estimate([100 * value for value in accuracy])))
        return points


def gates_of(rows: Iterable[Row]) -> list[Gate]:
    """The gates of a study."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows_of(rows, kind="gate", part="test"), key=lambda row: (row["replicate"], row["threshold"])):
        groups.setdefault((row["network"], row["exit"]), []).append(row)
    order = list(NETWORK)
    return [Gate(*key, tuple(groups[key])) for key in sorted(groups, key=lambda key: (order.index(key[0]), key[1]))]


def _at(level: float, rows: list[Row], column: str) -> float:
    return float(np.interp(level, [row["left"] for row in rows], [row[column] for row in rows]))
