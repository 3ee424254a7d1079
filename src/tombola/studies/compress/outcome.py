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
    sha256: str | None = None

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
    accuracy: float
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
        """The smallest that loses little enough and is smaller than the parent; of equals that of fewer bytes."""
        able = []
        for one in self.candidates:
            fraction = one.fraction(self.measure)
            if one.within and fraction is not None and fraction < 1:
                able.append((fraction, one.costs.bytes or 0.0, one.drop or 0.0, one))
        return min(able, key=lambda found: found[:3])[3] if able else None

    @property
    def reached(self) -> bool | None:
        """Whether the chosen one is as small as asked; None where one that could not be measured may be."""
        unknown = None if self.unmeasured else False
        if self.chosen is None:
            return unknown
        cost, parents = self.chosen.costs.of(self.measure), self.chosen.parent.of(self.measure)
        if cost is None or parents is None:
            return None
        return True if cost <= self.target.limit(parents) else unknown

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
        """The candidates whose files stay: those of the front that lose little enough, the chosen one among them."""
        return [one for one in self.front if one.within]

    @property
    def fault(self) -> str | None:
        """What is wrong with the parent, which a search cannot mend."""
        return fault_of(self.parent, "validation")

    @property
    def unmeasured(self) -> list[Candidate]:
        """Those that lose little enough, and of which the measure could not be taken."""
        return [one for one in self.candidates if one.within and one.fraction(self.measure) is None]


def summarise(folder: Path, config: CompressConfig, rows: Sequence[Row]) -> Search:
    """What the rows of a finished search come to."""
    (parent,) = rows_of(rows, kind="parent")
    costs = {key_of(row): row for row in rows_of(rows, kind="cost")}
    candidates = [_candidate(row, parent, costs.get(key_of(row))) for row in rows_of(rows, kind="candidate")]
    tests = rows_of(rows, kind="test")
    tested = _tested(tests[0]) if tests and tests[0]["accuracy"] is not None else None
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
        sha256=row["sha256"],
        reason=_why_unknown(row, cost),
    )


def _why_unknown(row: Row, cost: Row | None) -> str | None:
    if row["flops"] is None:
        return "its FLOPs cannot be counted: the forward pass asks for the values of numbers"
    return None if cost is None else cost["reason"] or cost["clock"]


def _tested(row: Row) -> Tested:
    """With the interval of Bonett & Price 2012 for a difference of paired proportions, in which one more example is
    lost and one more won; the difference itself is as it was counted."""
    n, lost, won = row["examples"], row["lost"], row["won"]
    mean = (lost - won) / (n + 2)
    half = normal_quantile((1 + CONFIDENCE) / 2) * math.sqrt(((lost + won + 2) / (n + 2) - mean * mean) / (n + 2))
    drop, low, high = 100 * (lost - won) / n, 100 * (mean - half), 100 * (mean + half)
    return Tested(n, row["parent_accuracy"], row["accuracy"], drop, low, high)


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
