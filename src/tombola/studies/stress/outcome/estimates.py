"""A metric over seeds: seeds are the replicates, and the draws of one seed are averaged before they are counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tombola.reports import intervals
from tombola.studies.stress.metrics import Value, commonest, mean_of

ONE_SEED = "one seed has no interval"
BySeed = Mapping[int, Value]


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds with its 95 % t interval. `mean` is None where no seed has a value, `low` and `high` where
    fewer than two have.

    `reason` says what is not there and why, of single values, too: of all that the mean is of (tasks, visits, draws,
    seeds; `asked`), `missing` could not be computed.
    """

    mean: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str | None = None
    sd: float | None = None
    asked: int = 0
    missing: int = 0

    @property
    def plain(self) -> intervals.Estimate | None:
        """For what `reports` does with means that are there."""
        return None if self.mean is None else intervals.Estimate(self.mean, self.low, self.high, self.sd, self.n)

    @property
    def entry(self) -> dict[str, Any]:
        """For a program."""
        interval = None if self.low is None else [self.low, self.high]
        return {
            "mean": self.mean,
            "ci": interval,
            "n": self.n,
            "reason": self.reason,
            "asked": self.asked,
            "missing": self.missing,
        }


def by_seed(values: Iterable[tuple[int, Value]]) -> dict[int, Value]:
    """The mean of each seed's draws."""
    draws: dict[int, list[Value]] = defaultdict(list)
    for seed, value in values:
        draws[seed].append(value)
    return {seed: _over_draws(found) for seed, found in sorted(draws.items())}


def _over_draws(draws: list[Value]) -> Value:
    mean = mean_of(draws)
    return Value(mean.number, _reason(draws), sum(one.asked for one in draws), sum(one.missing for one in draws))


def over_seeds(seeds: BySeed, nobody: str = "not measured") -> Estimate:
    """The mean over seeds with its interval, or the reason why there is none."""
    values = list(seeds.values())
    asked, missing = (sum(getattr(one, name) for one in values) for name in ("asked", "missing"))
    numbers = [one.number for one in values if one.number is not None]
    reason = _reason(values)
    if not numbers:
        return Estimate(None, reason=reason or nobody, asked=asked, missing=missing)
    found = intervals.estimate(numbers)
    if found.n < 2 and len(values) < 2:
        reason = f"{ONE_SEED}; {reason}" if reason else ONE_SEED
    elif found.n < 2:
        reason = f"one of {len(values)} seeds has a value; {reason}"
    return Estimate(found.mean, found.low, found.high, found.n, reason, found.sd, asked, missing)


def paired(ours: BySeed, theirs: BySeed, nobody: str = "not measured") -> Estimate:
    """Ours minus theirs, seed by seed."""
    both = sorted(ours.keys() & theirs.keys())
    return over_seeds({seed: minus(ours[seed], theirs[seed]) for seed in both}, nobody)


def minus(ours: Value, theirs: Value) -> Value:
    """A difference, null where either is."""
    asked, missing = max(ours.asked, theirs.asked), max(ours.missing, theirs.missing)
    if ours.number is None or theirs.number is None:
        return Value(None, ours.reason if ours.number is None else theirs.reason, asked, max(1, missing))
    return Value(ours.number - theirs.number, ours.reason or theirs.reason, asked, missing)


def _reason(values: Iterable[Value]) -> str | None:
    return commonest(value.reason for value in values)
