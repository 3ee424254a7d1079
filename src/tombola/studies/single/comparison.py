"""What a comparison came to: a pure function of its rows.

A method's loss is its parent's accuracy minus its own, in points, paired by replicate. The method that loses least is
chosen on validation and reported on test; the others are compared with it on test, as one family (Holm), and those
without a significant difference to it are named, with the difference that such a study would find.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tombola.reports.intervals import Estimate, Paired, estimate
from tombola.reports.significance import Judged, judged
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.numbers import interval, whole_percent
from tombola.studies.base.soundness import faults_of
from tombola.studies.single.config import CompareConfig


@dataclass(frozen=True)
class Method:
    """One criterion in one setting of the grid; the estimates are None where it is refused.

    `lost` is in points of test accuracy after fine-tuning, `lost_pruned` before it; `resolution` is the step in
    which they can move, 100 / test examples.
    """

    criterion: str
    refused: str | None
    lost: Estimate | None = None
    lost_pruned: Estimate | None = None
    lost_validation: Estimate | None = None
    accuracy: Estimate | None = None
    units_kept: float | None = None
    weights_kept: float | None = None
    flops_kept: float | None = None
    by_replicate: dict[int, float] = field(default_factory=dict)
    resolution: float = 0.0
    fault: str | None = None
    """In which replicates it learned nothing (see `studies.base.soundness`)."""
    averaged: Estimate | None = None
    """Test accuracy with averaged weights, where the fine-tuning averages them; decides nothing."""


SHOWN_OF_METHOD = (
    *("criterion", "refused", "accuracy", "lost", "lost_pruned", "lost_validation"),
    *("units_kept", "weights_kept", "flops_kept", "fault"),
)
"""What a program is told of a method."""
UNITS = {
    "accuracy": "percent",
    "parent": "percent",
    **dict.fromkeys(("lost", "lost_pruned", "lost_validation"), "points"),
    **dict.fromkeys(("sparsity", "units_kept", "weights_kept", "flops_kept"), "fraction"),
}


@dataclass(frozen=True)
class Setting:
    """The methods of one structure, distribution and sparsity, in the config's order."""

    structure: str
    distribution: str
    sparsity: float
    methods: list[Method]

    @property
    def where(self) -> dict[str, Any]:
        """The point of the grid."""
        return {"structure": self.structure, "distribution": self.distribution, "sparsity": self.sparsity}

    @property
    def name(self) -> str:
        """`filter, global, 90%`."""
        return f"{self.structure}, {self.distribution}, {whole_percent(self.sparsity)}"

    @property
    def best(self) -> Method | None:
        """The method that loses least on validation; None where all are refused."""
        able = [method for method in self.methods if method.lost_validation is not None]
        return min(able, key=_validation_loss) if able else None

    @property
    def rivals(self) -> list[str]:
        """The methods whose test loss, paired with the best one's, shows no significant difference."""
        return [name for name, one in self._to_best.items() if one.side == "open"]

    @property
    def better(self) -> list[str]:
        """The methods that are shown to lose less on test than the best one on validation."""
        return [name for name, one in self._to_best.items() if one.side == "below"]

    @cached_property
    def _to_best(self) -> dict[str, Judged]:
        best = self.best
        if best is None:
            return {}
        others = [method for method in self.methods if method is not best and method.lost is not None]
        return judged({method.criterion: _difference(method, best) for method in others})

    @property
    def sentence(self) -> str:
        """What the setting says, for a person."""
        where = f"{self.name} removed"
        best = self.best
        if best is None or best.lost is None:
            return f"{where}: every method is refused ({self.methods[0].refused})."
        said = f"{where}: {best.criterion} loses least on validation, {interval(best.lost)} of test accuracy"
        if best.lost.n < 2:
            return f"{said} (one replicate: nothing is known of chance).{self._nothing_learned}"
        if self.better:
            said += f"; on the test set these lose less: {', '.join(self.better)}"
        if self.rivals:
            found = [one.detectable for one in map(self._to_best.get, self.rivals) if one and one.detectable]
            at_most = f" (80 % of such studies would find {max(found):.2f} points)" if found else ""
            said += f"; no significant difference to it: {', '.join(self.rivals)}{at_most}"
        others = [method for method in self.methods if method is not best and method.lost is not None]
        said += "." if self.better or self.rivals or not others else "; every other method loses more."
        return said + self._nothing_learned

    @property
    def _nothing_learned(self) -> str:
        """Which methods left a network that is not shown to be better than always answering the most frequent class."""
        found = [f"{method.criterion} {method.fault}" for method in self.methods if method.fault]
        return f" No better than the most frequent class: {', '.join(found)}." if found else ""


@dataclass(frozen=True)
class Comparison:
    """A finished comparison."""

    folder: Path
    config: CompareConfig
    rows: list[Row]
    parent: Estimate
    settings: list[Setting]
    parent_fault: str | None = None


def summarise(folder: Path, config: CompareConfig, rows: Sequence[Row]) -> Comparison:
    """The comparison that the rows make."""
    parents = {row["replicate"]: row for row in rows_of(rows, kind="stage")}
    settings = [
        Setting(
            structure,
            distribution,
            sparsity,
            [_method(rows, parents, structure, distribution, sparsity, c) for c in config.criteria],
        )
        for structure in config.structures
        for distribution in config.distributions
        for sparsity in config.sparsities
    ]
    parent = estimate([100 * row["test_accuracy"] for row in parents.values()])
    return Comparison(folder, config, list(rows), parent, settings, faults_of(list(parents.values())))


def _method(
    rows: Sequence[Row], parents: dict[int, Row], structure: str, distribution: str, sparsity: float, criterion: str
) -> Method:
    setting = {"structure": structure, "distribution": distribution, "sparsity": sparsity, "criterion": criterion}
    own = rows_of(rows, kind="way", **setting)
    refusals = [row["refused"] for row in own if row["refused"] is not None]
    if refusals or not own:
        return Method(criterion, refusals[0] if refusals else "not run")

    def lost(mine: str, theirs: str) -> Paired:
        before = {index: 100 * row[theirs] for index, row in parents.items()}
        return _paired(before, {row["replicate"]: 100 * row[mine] for row in own}, resolution)

    def mean(value: Callable[[Row], float]) -> float:
        return estimate([value(row) for row in own]).mean

    resolution = 100 / own[0]["test_examples"]
    counted = all(row["flops_effective"] is not None and row["flops_dense"] for row in own)
    averaged = [100 * value for row in own if (value := row.get("averaged_test_accuracy")) is not None]
    test = lost("test_accuracy", "test_accuracy")
    return Method(
        criterion,
        None,
        test.interval,
        lost("pruned_test_accuracy", "test_accuracy").interval,
        lost("validation_accuracy", "validation_accuracy").interval,
        estimate([100 * row["test_accuracy"] for row in own]),
        mean(lambda row: row["units_kept"] / row["units"]),
        mean(lambda row: row["kept"] / row["weights"]),
        mean(lambda row: row["flops_effective"] / row["flops_dense"]) if counted else None,
        dict(zip(sorted(row["replicate"] for row in own), test.values, strict=True)),
        resolution,
        faults_of(own),
        estimate(averaged) if averaged else None,
    )


def _validation_loss(method: Method) -> float:
    assert method.lost_validation is not None
    return method.lost_validation.mean


def _difference(method: Method, best: Method) -> Estimate:
    return _paired(method.by_replicate, best.by_replicate, best.resolution).interval


def _paired(ours: dict[int, float], theirs: dict[int, float], resolution: float) -> Paired:
    found = Paired.of(ours, theirs, resolution)
    assert found is not None  # every replicate has its parent and every method
    return found
