"""A whole network against an exit and its forest: FLOPs, test accuracy, and whole calls on the clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tombola.compression.measured import BATCH_SIZES
from tombola.reports.intervals import Estimate
from tombola.reports.significance import Judged, judged
from tombola.runs.rows import Row
from tombola.studies.base.numbers import found_in_most, signed
from tombola.studies.hybrid.summaries import Measured, accuracies, paired, resolution_of
from tombola.studies.hybrid.timings import apart, by_torch, fastest, why_missing

Calls = tuple[Row | None, Row | None]
"""The network's whole call and that of the exit with its forest; None where there is no time."""


@dataclass(frozen=True)
class Comparison:
    """A network, whole, against the forest at an exit of the frozen base, or of dense where there is no base."""

    network: Measured
    exit: Measured
    rows: Sequence[Row]

    @property
    def flops(self) -> tuple[Estimate | None, Estimate | None]:
        """Effective FLOPs of one example, the network's and the exit's."""
        return self.network.over("flops_effective"), self.exit.over("flops_effective")

    @property
    def accuracy(self) -> Estimate | None:
        """Network minus exit in points of test accuracy."""
        return paired(accuracies(self.network), accuracies(self.exit), resolution_of(self.rows))

    def calls(self, batch: int) -> Calls:
        """Each by its fastest engine."""
        (ours, theirs) = self._places
        return fastest(self.rows, *ours, batch), fastest(self.rows, *theirs, batch)

    def calls_by_torch(self, batch: int) -> Calls:
        (ours, theirs) = self._places
        return by_torch(self.rows, *ours, batch), by_torch(self.rows, *theirs, batch)

    def why_not(self, batch: int) -> str:
        """Why a call of this batch size has no time, the network's or else the exit's."""
        (ours, theirs) = self._places
        if self.calls(batch)[0] is None:
            return f"{self.network.network}: {why_missing(self.rows, *ours, batch)}"
        return f"exit: {why_missing(self.rows, *theirs, batch)}"

    @property
    def seconds(self) -> list[dict[str, Any]]:
        """For a program, an entry for each batch size."""
        return [self._timed(batch) for batch in BATCH_SIZES]

    def _timed(self, batch: int) -> dict[str, Any]:
        ours, theirs = self.calls(batch)
        return {
            "batch": batch,
            self.network.network: ours and {"engine": ours["engine"], "quartiles": ours["seconds"]},
            "exit": theirs and {"engine": theirs["engine"], "quartiles": theirs["seconds"]},
            "reason": None if ours and theirs else self.why_not(batch),
        }

    @property
    def _places(self) -> tuple[tuple[str, None, None], tuple[str, str | None, str | None]]:
        return (self.network.network, None, None), (self.exit.network, self.exit.exit, self.exit.features)


def families(comparisons: Mapping[str, Comparison]) -> dict[str, Judged]:
    """Each network's difference in test accuracy to the exit, all of one answer being one family."""
    differences = {name: found.accuracy for name, found in comparisons.items()}
    return judged({name: difference for name, difference in differences.items() if difference is not None})


def accuracy_words(one: Judged | None) -> str:
    """`is more accurate on test (+1.20 points (95 % CI +0.80 to +1.60, n = 5))`."""
    if one is None:
        return "has no test accuracy to compare"
    if one.p is None:
        return f"cannot be judged against it in test accuracy: {signed(one.difference)}"
    if one.side == "open":
        return f"shows no significant difference in test accuracy: {signed(one.difference)}; {found_in_most([one])}"
    return f"is {'more' if one.side == 'above' else 'less'} accurate on test: {signed(one.difference)}"


def pace(calls: Calls) -> str:
    """How the first of two calls compares to the second."""
    ours, theirs = calls
    if ours is None or theirs is None:
        return "is of unknown speed"
    if not apart(ours, theirs):
        return "is about as fast"
    return "is faster" if ours["seconds"][1] < theirs["seconds"][1] else "is slower"


def comparison_numbers(found: Comparison) -> dict[str, Any]:
    """What is known of the network, for a program."""
    ours, _ = found.flops
    return {
        "density": found.network.mean("density"),
        "flops_effective": ours and asdict(ours),
        "flops_dense": found.network.mean("flops_dense"),
    }
