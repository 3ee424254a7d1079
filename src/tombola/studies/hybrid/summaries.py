"""What the rows of a hybrid study come to over replicates: forests, networks and their paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tombola.reports.intervals import Estimate, Paired, estimate
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.soundness import faults_of
from tombola.studies.hybrid.units import NETWORK

COLUMNS = (
    *("validation_accuracy", "test_accuracy", "validation_f1", "test_f1", "density", "flops_dense", "flops_effective"),
    *("comparisons", "nodes", "cnn_bytes", "forest_bytes", "bytes"),
)
"""What a program is told of a forest or a network."""
UNITS = {
    **dict.fromkeys(("validation_accuracy", "test_accuracy", "validation_f1", "test_f1", "density"), "fraction"),
    **dict.fromkeys(("cnn_bytes", "forest_bytes", "bytes"), "bytes"),
}


@dataclass(frozen=True)
class Measured:
    """The rows of one thing, one for each replicate, in their order."""

    network: str
    exit: str | None
    features: str | None
    rows: tuple[Row, ...]

    def over(self, column: str, scale: float = 1.0) -> Estimate | None:
        """The column's mean and interval over replicates; None where a replicate has no value."""
        values = [row[column] for row in self.rows]
        return None if not values or None in values else estimate([value * scale for value in values])

    def mean(self, column: str) -> float | None:
        found = self.over(column)
        return None if found is None else found.mean

    @property
    def fault(self) -> str | None:
        """`learned nothing in replicate 3 (of 5)`: by test accuracy; None where all learned, or the rows do not say."""
        return faults_of(self.rows)

    @property
    def name(self) -> str:
        """`dense, block3_conv3, gap`; what has no exit is named by its network."""
        parts = [NETWORK[self.network], self.exit, self.features if self.exit else None]
        return ", ".join(part for part in parts if part)


def forests_of(rows: Iterable[Row]) -> list[Measured]:
    """All forests: baselines, then by network from its first exit to its last, from few features to many."""
    groups = _grouped(rows_of(rows, kind="forest"))
    order = list(NETWORK)

    def place(forest: Measured) -> tuple[int, float, str, int, str]:
        width = forest.rows[0]["inputs"]
        return order.index(forest.network), _depth(forest), forest.exit or "", width, forest.features or ""

    return sorted(groups, key=place)


def networks_of(rows: Iterable[Row]) -> dict[str, Measured]:
    """The whole networks by name."""
    groups = {found.network: found for found in _grouped(rows_of(rows, kind="network"))}
    return {name: groups[name] for name in NETWORK if name in groups}


def best_features(forests: Sequence[Measured]) -> list[Measured]:
    """For every network and exit the forest of best mean validation accuracy; of equals the one of fewest features.

    The test set is not looked at.
    """
    best: dict[tuple[str, str | None], Measured] = {}
    for forest in forests:
        place = (forest.network, forest.exit)
        if place not in best or _rank(forest) > _rank(best[place]):
            best[place] = forest
    return list(best.values())


def entries(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Every forest and whole network for a program, with means and intervals over replicates; `chosen` as by
    `best_features`."""
    rows = list(rows)
    forests = forests_of(rows)
    best = best_features(forests)
    return [
        {
            "network": found.network,
            "exit": found.exit,
            "features": found.features,
            "chosen": None if found not in forests else found in best,
            "fault": found.fault,
            **{column: found.over(column) for column in COLUMNS if column in found.rows[0]},
        }
        for found in [*forests, *networks_of(rows).values()]
    ]


def exits_of(forests: Iterable[Measured]) -> list[str]:
    """The exits, from the first to the last, whatever the network."""
    depth = {forest.exit: _depth(forest) for forest in forests if forest.exit is not None}
    return sorted(depth, key=lambda name: (depth[name], name))


def accuracies(measured: Measured) -> dict[int, float]:
    """Test accuracy in percent by replicate; without those replicates that have none."""
    return {row["replicate"]: 100 * row["test_accuracy"] for row in measured.rows if row["test_accuracy"] is not None}


def resolution_of(rows: Iterable[Row]) -> float:
    """The step in which a test accuracy can move, in points; see `reports.intervals.one_sided`."""
    return 100 / min(row["test_examples"] for row in rows if row["kind"] == "forest")


def paired(ours: dict[int, float], theirs: dict[int, float], resolution: float = 0.0) -> Estimate | None:
    """The mean difference of what two have in the same replicates; None where they share none."""
    found = Paired.of(ours, theirs, resolution)
    return None if found is None else found.interval


def _grouped(rows: Iterable[Row]) -> list[Measured]:
    groups: dict[tuple[str, str | None, str | None], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["replicate"]):
        groups.setdefault((row["network"], row["exit"], row.get("features")), []).append(row)
    return [Measured(*key, tuple(found)) for key, found in groups.items()]


def _depth(forest: Measured) -> float:
    """Exits lie as deep as what is computed up to them."""
    return forest.mean("flops_dense") or 0.0


def _rank(forest: Measured) -> tuple[float, float]:
    return forest.mean("validation_accuracy") or 0.0, -forest.rows[0]["inputs"]
