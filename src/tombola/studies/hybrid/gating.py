"""What gate rows come to: accuracy against mean cost over replicates, and the thresholds that they chose.

Every replicate has its own thresholds, and perhaps its own features. Curves are pooled at equal fractions of examples
that leave early, between two thresholds in a straight line: a coin that picks one of the two would do as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tombola.reports.intervals import Estimate, estimate
from tombola.reports.tables import Table, plus_minus
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.numbers import MISSING, cell, listed, mega, percent
from tombola.studies.hybrid.summaries import (
    Measured,
    accuracies,
    networks_of,
    paired,
    resolution_of,
)
from tombola.studies.hybrid.units import NETWORK

GATES_NOTE = (
    "An example leaves at the exit when the forest's largest probability is above the threshold, and goes on "
    "through the network otherwise. Thresholds are chosen on validation, the rest is of the test set: the fraction "
    "that leaves, accuracy in percent, ± half of the 95 % confidence interval, its difference in points to the network "
    "without a gate [95 % confidence interval], paired by replicate and uncorrected, effective MFLOPs and comparisons "
    "of a mean example."
)

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


def gates_table(rows: Sequence[Row]) -> Table:
    """A line for every gate at its chosen thresholds."""
    networks = networks_of(rows)
    columns = ("Network", "Exit", "Features", "Threshold", "Leave early", "Test accuracy", "To the whole network")
    body = []
    for gate in gates_of(rows):
        chosen, whole = gate.chosen, networks.get(gate.network)
        if not chosen:
            continue
        flops = estimate([row["flops"] for row in chosen]).mean
        body.append(
            (
                *(NETWORK[gate.network], gate.exit, gate.features),
                _span([row["threshold"] for row in chosen]),
                percent(estimate([row["left"] for row in chosen]).mean),
                plus_minus(estimate([100 * row["accuracy"] for row in chosen])),
                _to_whole(chosen, whole, rows),
                mega(flops),
                MISSING if whole is None else _of_whole(flops, whole),
                f"{estimate([row['comparisons'] for row in chosen]).mean:,.0f}",
            )
        )
    return Table((*columns, "MFLOPs", "MFLOPs of whole", "Comparisons"), body)


def curve_table(rows: Sequence[Row]) -> Table:
    """Every gate row, for programs: thresholds are each replicate's own, `chosen` the one it chose on validation."""
    names = ("network", "exit", "features", "part", "replicate")
    numbers = ("threshold", "left", "accuracy", "f1", "flops", "comparisons")
    gates = sorted(rows_of(rows, kind="gate"), key=lambda row: tuple(row[name] for name in (*names, "threshold")))
    body = [
        (*(str(row[name]) for name in names), str(int(row["chosen"])), *(f"{row[name]:.9g}" for name in numbers))
        for row in gates
    ]
    return Table((*names, "chosen", *numbers), body)


def _span(thresholds: Sequence[float]) -> str:
    low, high = min(thresholds), max(thresholds)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _to_whole(gate: Sequence[Row], whole: Measured | None, rows: Sequence[Row]) -> str:
    if whole is None:
        return MISSING
    ours = {row["replicate"]: 100 * row["accuracy"] for row in gate}
    gap = paired(ours, accuracies(whole), resolution_of(rows))
    return MISSING if gap is None else cell(gap)


def _of_whole(flops: float, whole: Measured) -> str:
    dense = whole.mean("flops_effective")
    return MISSING if not dense else percent(flops / dense)
