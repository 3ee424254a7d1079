"""Means and what is known about them: Student's t, two-sided intervals and one-sided bounds.

Every difference that is paired by replicate is a `Paired`: verdict, tables, figures and sentences read the same one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import nctdtr, ndtri, stdtrit

CONFIDENCE = 0.95
POWER = 0.8
"""The power at which a difference counts as one that could have been seen."""


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` replicates with its 95 % interval; `low` and `high` are None where n < 2."""

    mean: float
    low: float | None
    high: float | None
    sd: float | None
    n: int

    @property
    def half_width(self) -> float | None:
        return None if self.high is None else self.high - self.mean


def estimate(values: Sequence[float], resolution: float = 0.0) -> Estimate:
    """Mean and two-sided 95 % Student t interval; one value alone has no interval.

    `resolution` is the step in which a difference can move, with the meaning that it has in `one_sided`.
    """
    data = np.asarray(values, dtype=np.float64)
    if not len(data):
        raise ValueError("an estimate needs at least one value")
    bounds = one_sided(values, resolution, (1 + CONFIDENCE) / 2)
    return Estimate(bounds.mean, bounds.lower, bounds.upper, bounds.sd, bounds.n)


@dataclass(frozen=True)
class Bounds:
    """A mean difference with its one-sided bounds, below and above, each at `confidence`; None where n < 2."""

    mean: float
    lower: float | None
    upper: float | None
    sd: float | None
    n: int
    confidence: float = CONFIDENCE


def one_sided(differences: Sequence[float], resolution: float = 0.0, confidence: float = CONFIDENCE) -> Bounds:
    """One-sided Student t bounds of a mean of paired differences.

    `resolution` is the step in which a difference can move (100 / test examples, in points). Accuracies are
    shares of a finite test set, so a few differences can agree by rounding alone and pretend to certainty:
    the standard deviation is taken to be at least that of two rounding errors, resolution / sqrt(6).
    """
    data = np.asarray(differences, dtype=np.float64)
    mean = float(data.mean())
    if len(data) < 2:
        return Bounds(mean, None, None, None, len(data), confidence)
    return bounds_of(mean, max(float(data.std(ddof=1)), resolution / math.sqrt(6)), len(data), confidence)


def bounds_of(mean: float, sd: float, n: int, confidence: float = CONFIDENCE) -> Bounds:
    """One-sided Student t bounds of a mean of `n` ≥ 2 values with this standard deviation."""
    half = t_quantile(confidence, n - 1) * sd / math.sqrt(n)
    return Bounds(mean, mean - half, mean + half, sd, n, confidence)


@dataclass(frozen=True)
class Paired:
    """Differences of what two things have in the same replicates, one value a replicate, in order of replicates.

    `resolution` is the step in which a difference can move; see `one_sided`.
    """

    values: tuple[float, ...]
    resolution: float = 0.0

    @classmethod
    def of(cls, ours: Mapping[int, float], theirs: Mapping[int, float], resolution: float = 0.0) -> Paired | None:
        """Ours minus theirs by replicate; None where the two share no replicate."""
        both = sorted(ours.keys() & theirs.keys())
        return cls(tuple(ours[index] - theirs[index] for index in both), resolution) if both else None

    @property
    def interval(self) -> Estimate:
        """The mean difference with its two-sided 95 % interval."""
        return estimate(self.values, self.resolution)

    def bounds(self, confidence: float = CONFIDENCE) -> Bounds:
        """The mean difference with its one-sided bounds."""
        return one_sided(self.values, self.resolution, confidence)


def power(difference: float, sd: float, n: int, confidence: float = CONFIDENCE) -> float:
    """The probability that the one-sided t test of `n` paired differences finds a true `difference`.

    The statistic follows a noncentral t distribution with noncentrality difference · sqrt(n) / sd.
    """
    return 1 - float(nctdtr(n - 1, difference * math.sqrt(n) / sd, t_quantile(confidence, n - 1)))


def detectable(sd: float, n: int, confidence: float = CONFIDENCE, wanted: float = POWER) -> float:
    """The minimum detectable effect: the smallest true difference that the one-sided t test finds with power `wanted`.

    Found by bisection to a relative accuracy of 1e-6; `n` is at least 2.
    """
    low, high = 0.0, sd
    while power(high, sd, n, confidence) < wanted:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle, sd, n, confidence) < wanted else (low, middle)
    return high


def t_quantile(probability: float, degrees: float) -> float:
    """The quantile of Student's t distribution."""
    return float(stdtrit(degrees, probability))


def normal_quantile(probability: float) -> float:
    """The quantile of the standard normal distribution."""
    return float(ndtri(probability))
