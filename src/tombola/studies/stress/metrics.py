"""Formulas of continual learning on small arrays. No rows, no seeds: `lives` reads rows, `outcome` averages over seeds.

`scores[p, j]` is the held-out score a of task j after phase p, more is better (−nats a target token, or accuracy); row
0 is just after pruning. `visits[j]` are the phases in which task j was trained, in order. With one visit a task the
formulas are those of the papers; with several they look at the last (backward transfer) or the first (forward
transfer). NaN is a score that was not taken.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Visits = Sequence[Sequence[int]]
NOISE = 2.0
"""Standard errors, paired over items, that a change must exceed to count as one."""
TARGET = 0.5
"""The target of a task lies halfway between its score before it was first learned and the score after."""


@dataclass(frozen=True)
class Value:
    """A number, or None and the reason. A mean knows how many of the values it is of (`asked`) are `missing`."""

    number: float | None
    reason: str | None = None
    asked: int = 1
    missing: int = 0


def null(reason: str) -> Value:
    """A number that cannot be had."""
    return Value(None, reason, missing=1)


def known(number: float, otherwise: str = "not measured") -> Value:
    """A number; where it is NaN there is none, for the reason given."""
    return Value(float(number)) if math.isfinite(number) else null(otherwise)


def mean_of(values: Iterable[Value], nobody: str = "no such value in this life") -> Value:
    """The mean of those that are known; where none is, the reason that most have."""
    found = list(values)
    numbers = [value.number for value in found if value.number is not None]
    if numbers:
        left_out = [value.reason for value in found if value.number is None]
        return Value(float(np.mean(numbers)), commonest(left_out), len(found), len(left_out))
    return Value(None, commonest([value.reason for value in found]) or nobody, len(found), len(found))


def difference(ours: Value, theirs: Value) -> Value:
    """Null where either is."""
    if ours.number is None or theirs.number is None:
        return ours if ours.number is None else theirs
    return known(ours.number - theirs.number)


def commonest(reasons: Iterable[str | None]) -> str | None:
    """The reason that most have, the first of equals."""
    counted = Counter(reason for reason in reasons if reason is not None)
    return counted.most_common(1)[0][0] if counted else None


def average(scores: Array) -> Value:
    """ACC of a state, (J,): the mean over its tasks (Lopez-Paz & Ranzato 2017, Gradient episodic memory)."""
    return mean_of(known(score) for score in scores)


def backward_transfer(scores: Array, visits: Visits) -> Value:
    """BWT = mean of a[P,j] − a[l,j], l the last visit of j, over tasks that another followed (Lopez-Paz & Ranzato).

    Negative is forgetting.
    """
    return mean_of((known(scores[-1, j] - scores[visits[j][-1], j]) for j in followed(scores, visits)), ONLY_ONE)


def forward_transfer(scores: Array, visits: Visits, reference: Array) -> Value:
    """FWT = mean of a[f−1,j] − b_j, f the first visit of j, over all tasks but the first (Lopez-Paz & Ranzato 2017).

    `reference` b, (J,): the scores of an untrained network as in the paper, or those just after pruning.
    """
    later = [j for j, phases in enumerate(visits) if phases and phases[0] > 1]
    return mean_of((known(scores[visits[j][0] - 1, j] - reference[j]) for j in later), ONLY_ONE)


def forgetting(scores: Array, visits: Visits) -> Value:
    """F = mean of max a[l,j] − a[P,j] over 1 ≤ l < P, over tasks that another followed (Chaudhry et al. 2018).

    Signed: a task that is better than ever before has forgotten less than nothing.
    """
    found = []
    for j in followed(scores, visits):
        earlier = scores[1:-1, j]
        earlier = earlier[np.isfinite(earlier)]
        found.append(known(earlier.max() - scores[-1, j]) if len(earlier) else null("no earlier score"))
    return mean_of(found, ONLY_ONE)


ONLY_ONE = "no task was followed by another"


def followed(scores: Array, visits: Visits) -> list[int]:
    """The tasks that were trained, and not last."""
    return [j for j, phases in enumerate(visits) if phases and phases[-1] < len(scores) - 1]


def normalised_forgetting(after: float, later: float, start: float, noise: float) -> Value:
    """(a_after − a_later) / (a_after − a_start): what is lost again of what was learned; 1 is all of it.

    `noise` is the standard error of the learned gain, paired over items; a gain within `NOISE` of them gives null.
    """
    refused = _too_small(after - start, noise, "gain")
    return refused or known((after - later) / (after - start))


def recovery(relearned: float, before: float, peak: float, noise: float) -> Value:
    """(a_relearned − a_before) / (a_peak − a_before), not clipped: 1 is back at the peak, more is beyond it.

    `noise` is the standard error of what was lost, a_peak − a_before; a loss within `NOISE` of them gives null.
    """
    refused = _too_small(peak - before, noise, "loss")
    return refused or known((relearned - before) / (peak - before))


def _too_small(change: float, noise: float, of: str) -> Value | None:
    if not math.isfinite(change):
        return null("not measured")
    if not math.isfinite(noise):
        return null(f"the {of} has no standard error")
    if change <= NOISE * noise:
        return null(BELOW[of])
    return None


BELOW = {"gain": "not learned: the gain is within noise", "loss": "nothing to recover: the loss is within noise"}


@dataclass(frozen=True)
class Curve:
    """A learning curve on the few items of looks inside a phase; the first point is the state in which it begins."""

    steps: Array
    tokens: Array
    scores: Array


NO_START = "the start of the learning curve was not measured"


def reached(target: float, x: Array, scores: Array, unit: str = "steps") -> Value:
    """Where a learning curve first is at its target, in steps or tokens `x`: linear between looks, 0 where it begins
    there. Null where it never is."""
    if not math.isfinite(target) or not np.isfinite(scores).any():
        return null("not measured")
    previous: tuple[float, float] | None = None
    for place, score in zip(x, scores, strict=True):
        if not math.isfinite(score):
            continue
        if score >= target:
            if previous is None:
                return Value(float(place)) if place == 0 else null(NO_START)
            fraction = (target - previous[1]) / (score - previous[1])
            return Value(float(previous[0] + fraction * (place - previous[0])))
        previous = (place, score)
    return null(f"not reached in {x[-1]:g} {unit}")


def halfway(curve: Curve) -> float:
    """The target that a first learning sets: `TARGET` of the way from its first score to its last."""
    return float(curve.scores[0] + TARGET * (curve.scores[-1] - curve.scores[0]))


def savings(first: Curve, again: Curve) -> Value:
    """1 − steps to relearn / steps to learn first, both to halfway up the first learning (Ebbinghaus 1885).

    1 is nothing to relearn, 0 as slow as at first. Censored, null with a reason, where either is not there in time.
    """
    if not np.isfinite(first.scores[[0, -1]]).all():
        return null("not measured")
    if first.scores[-1] <= first.scores[0]:
        return null("not learned on the few items of the learning curve")
    target = halfway(first)
    steps = [reached(target, curve.steps, curve.scores) for curve in (first, again)]
    if steps[0].number is None or steps[1].number is None:
        return steps[0] if steps[0].number is None else null(f"relearning: {steps[1].reason}")
    return Value(1 - steps[1].number / steps[0].number)


def area(curve: Curve) -> Value:
    """The mean score over the steps of a phase: the trapezoids below the learning curve, divided by its steps."""
    if not np.isfinite(curve.scores[0]):
        return null(NO_START)
    kept = np.isfinite(curve.scores)
    steps, scores = curve.steps[kept], curve.scores[kept]
    if len(steps) < 2 or steps[-1] <= steps[0]:
        return null("fewer than two looks")
    below = np.diff(steps) * (scores[1:] + scores[:-1]) / 2
    return Value(float(below.sum() / (steps[-1] - steps[0])))


def stability_gap(inside: Array, reference: float) -> Value:
    """How far the worst look at an old task inside a phase lies below a reference (De Lange et al. 2023, Continual
    evaluation): its score at the end of the phase, or before the phase, on the same few items. Positive is a gap.

    The worst of several looks is below their mean by chance alone, so that a gap of 0 is not to be expected.
    """
    looked = inside[np.isfinite(inside)]
    return known(reference - looked.min()) if len(looked) else null("no look inside the phase")


ALIKE = 0.01
"""Nats a token: networks that know nothing differ by no more, and what never changes has no noise of its own."""


def is_dead(start: Array, floor: Array, gains: Sequence[Value], noise: Array) -> bool:
    """Whether a network is as an untrained one on every task just after pruning, and learned none of them.

    `start` and `floor` (an untrained network) are (J,), `noise` the largest standard error of a change of each task.
    """
    if not len(start) or not np.isfinite(floor).all() or any(gain.number is not None for gain in gains):
        return False
    return bool(np.all(start <= floor + np.maximum(ALIKE, NOISE * np.nan_to_num(noise))))
