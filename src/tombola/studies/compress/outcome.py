"""What a search came to: a pure function of its rows.

Of all candidates that lose at most the allowed accuracy on validation the smallest one by the target's measure is
chosen. It was the best of many there, so that its loss on validation is too kind by chance; the test examples, which
are looked at once, say what it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tombola.reports.intervals import CONFIDENCE, normal_quantile
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.numbers import whole_percent
from tombola.studies.base.soundness import fault_of
from tombola.studies.compress.config import CompressConfig, Spread, Structure
from tombola.studies.compress.target import Measure, Target

Key = tuple[Any, ...]
"""Structure, distribution, level and precision of a candidate."""
UNITS = {
    "sparsity": "fraction",
    "accuracy": "fraction",
    "drop": "points",
    **dict.fromkeys(("bytes", "memory"), "bytes"),
    "latency": "s",
}


@dataclass(frozen=True)
class Costed:
    """What something costs: counted, and as far as it was measured here. `seconds` are of a call, the median."""

    params: float | None
    bytes: float | None
    flops: float | None
    latency: float | None = None
    memory: float | None = None

    def of(self, measure: Measure) -> float | None:
        cost: float | None = getattr(self, measure)
        return cost


@dataclass(frozen=True)
class Candidate:
    """One file that was tried. `drop` is in points of validation accuracy; `parent` what the parent costs beside it.

    A `reason` says why a latency or memory is not there.
    """

    structure: Structure
    distribution: Spread | None
    level: int
    sparsity: float
    precision: str
    refused: str | None
    within: bool = False
    accuracy: float | None = None
    drop: float | None = None
    costs: Costed = Costed(None, None, None)
    parent: Costed = Costed(None, None, None)
    parent_engine: str | None = None
    engine: str | None = None
    file: str | None = None
    reason: str | None = None
    nearly_empty: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        return (self.structure, self.distribution, self.level, self.precision)

    @property
    def name(self) -> str:
        """`weight, global, 90 %, int8`; of the model as it is `dense, int8`."""
        if self.distribution is None:
            return f"{self.structure}, {self.precision}"
        return f"{self.structure}, {self.distribution}, {whole_percent(self.sparsity)}, {self.precision}"

    def fraction(self, measure: Measure) -> float | None:
        """Of what the parent costs."""
        own, parents = self.costs.of(measure), self.parent.of(measure)
        return None if own is None or not parents else own / parents


@dataclass(frozen=True)
class Tested:
    """The look at the test examples: accuracies as fractions; the drop in points, with its 95 % interval over them."""

    examples: int
    parent: float
    accuracy: float | None
    drop: float
    low: float
    high: float


@dataclass(frozen=True)
class Search:
    """All candidates in the order of their paths, the chosen one, and how it did."""

    folder: Path
    config: CompressConfig
    rows: list[Row]
    parent: Row
    candidates: list[Candidate]
    tested: Tested | None

    @property
    def target(self) -> Target:
        return self.config.wanted

    @property
    def measure(self) -> Measure:
        return self.target.measure

    @cached_property
    def chosen(self) -> Candidate | None:
        """The smallest that loses little enough and is smaller than the parent; of equals the more accurate."""
        able = []
        for one in self.candidates:
            fraction = one.fraction(self.measure)
            if one.within and fraction is not None and fraction < 1:
                able.append((fraction, one.drop or 0.0, one))
        return min(able, key=lambda found: found[:2])[2] if able else None

    @property
    def reached(self) -> bool | None:
        """Whether the chosen one is as small as asked; None where nothing says so."""
        if self.chosen is None:
            return False if any(one.fraction(self.measure) is not None for one in self.candidates) else None
        cost, parents = self.chosen.costs.of(self.measure), self.chosen.parent.of(self.measure)
        return None if cost is None or parents is None else cost <= self.target.limit(parents)

    @cached_property
    def front(self) -> list[Candidate]:
        """The candidates that no other one beats in both cost and accuracy, from the largest down."""
        known = [one for one in self.candidates if one.drop is not None and one.fraction(self.measure) is not None]
        ordered = sorted(known, key=lambda one: (one.fraction(self.measure), one.drop))
        found: list[Candidate] = []
        for one in ordered:
            if not found or (one.drop or 0.0) < (found[-1].drop or 0.0):
                found.append(one)
        return found[::-1]

    @property
    def kept(self) -> list[Candidate]:
        """The candidates whose files stay: those of the front that lose little enough, and the chosen one."""
        return [one for one in self.front if one.within or one is self.chosen]

    @property
    def fault(self) -> str | None:
        """What is wrong with the parent, which a search cannot mend."""
        return fault_of(self.parent, "validation")

    @property
    def unmeasured(self) -> list[Candidate]:
        """Those that lose little enough, and of which the measure could not be taken."""
        return [one for one in self.candidates if one.within and one.costs.of(self.measure) is None]


def summarise(folder: Path, config: CompressConfig, rows: Sequence[Row]) -> Search:
    """What the rows of a finished search come to."""
    (parent,) = rows_of(rows, kind="parent")
    costs = {key_of(row): row for row in rows_of(rows, kind="cost")}
    candidates = [_candidate(row, parent, costs.get(key_of(row))) for row in rows_of(rows, kind="candidate")]
    tests = rows_of(rows, kind="test")
    tested = _tested(tests[0]) if tests else None
    return Search(folder, config, list(rows), parent, candidates, tested)


def key_of(row: Row) -> Key:
    """What names a candidate, in any row of it."""
    return tuple(row[name] for name in ("structure", "distribution", "level", "precision"))


def _candidate(row: Row, parent: Row, cost: Row | None) -> Candidate:
    shared = {name: row[name] for name in ("structure", "distribution", "level", "sparsity", "precision", "refused")}
    if row["refused"] is not None:
        return Candidate(**shared)
    seconds = None if cost is None else cost["seconds"]
    parents: dict[str, list[float]] = seconds["parent"] if seconds else {}
    fastest = min(parents, key=lambda name: parents[name][1], default=None)
    memory = (None, None) if cost is None else (cost["memory"], cost["memory_parent"])
    return Candidate(
        **shared,
        within=row["within"],
        accuracy=row["validation_accuracy"],
        drop=100 * (parent["validation_accuracy"] - row["validation_accuracy"]),
        costs=Costed(row["params"], row["bytes"], row["flops"], seconds["model"][1] if seconds else None, memory[0]),
        parent=Costed(
            parent["params"], parent["bytes"], parent["flops"], parents[fastest][1] if fastest else None, memory[1]
        ),
        parent_engine=fastest,
        engine=row["engine"],
        file=row["file"],
        nearly_empty=tuple(row["nearly_empty"]),
        reason=None if cost is None else cost["reason"] or cost["clock"],
    )


def _tested(row: Row) -> Tested:
    """The interval is that of a mean of differences -1, 0 and 1, which are paired by example (normal approximation)."""
    n, lost, won = row["examples"], row["lost"], row["won"]
    mean = (lost - won) / n
    variance = max((lost + won) / n - mean * mean, 0.0)
    # No less than what one example does: where none changed, n examples still do not show that none would.
    half = normal_quantile((1 + CONFIDENCE) / 2) * math.sqrt(max(variance, 1 / n) / n)
    return Tested(n, row["parent_accuracy"], row["accuracy"], 100 * mean, 100 * (mean - half), 100 * (mean + half))


def shown_to_programs(one: Candidate) -> dict[str, Any]:
    """A candidate in one level of keys."""
    if one.refused is None and one.reason is None:
        one = replace(one, reason=_why_unmeasured(one))
    plain = {name: value for name, value in vars(one).items() if name not in ("costs", "parent", "name")}
    return plain | vars(one.costs) | {f"parent_{name}": value for name, value in vars(one.parent).items()}


def _why_unmeasured(one: Candidate) -> str | None:
    if one.costs.latency is None:
        return "neither latency nor memory is measured of candidates that lose too much or that a target counts"
    return "memory is measured for a target of memory" if one.costs.memory is None else None
