"""Question 1: at which sparsity accuracy begins to degrade. A pure function of training rows.

A ticket *degrades* where the difference in test accuracy to dense, paired by replicate, is below 0 at one-sided 95 %.
The sparsities of a run are looked at from dense on, and nothing is corrected for how many there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from tombola.reports.intervals import Bounds, Estimate
from tombola.studies.hybrid.contest import difference
from tombola.studies.hybrid.questions import DEGRADATION, TITLE, Answer, Lottery, not_run
from tombola.studies.hybrid.wording import begun, points, share, signed
from tombola.studies.lottery.metrics import paired_difference


@dataclass(frozen=True)
class Step:
    """The tickets of one round against dense, in points of test accuracy."""

    sparsity: float
    bounds: Bounds
    difference: Estimate

    @property
    def degraded(self) -> bool:
        return self.bounds.upper is not None and self.bounds.upper < 0

    @property
    def unseen(self) -> float | None:
        """The largest drop, in points, that this many replicates of this spread would not have told from none."""
        return None if self.bounds.lower is None else self.bounds.mean - self.bounds.lower


@dataclass(frozen=True)
class Decline:
    """How the tickets of a lottery fare from dense to its sparsest."""

    lottery: Lottery

    @cached_property
    def steps(self) -> list[Step]:
        dense = self.lottery.branch("dense")
        found = []
        for index in self.lottery.rounds:
            ticket = self.lottery.branch("ticket", index)
            bounds = paired_difference(ticket, dense, "test")
            found.append(Step(1 - ticket[0]["density"], bounds, difference(ticket, dense)))
        return found

    @property
    def onset(self) -> Step | None:
        """The first degraded step; None where none is shown to be."""
        return next((step for step in self.steps if step.degraded), None)

    @property
    def reason(self) -> str | None:
        """Why nothing can be said of where it begins."""
        if not self.steps:
            return "no ticket was trained"
        if all(step.unseen is None for step in self.steps):
            return "one replicate has no spread"
        return None

    @property
    def unseen(self) -> tuple[float, float] | None:
        """The smallest and largest drop that could not have been seen, up to the onset."""
        last = len(self.steps) if self.onset is None else self.steps.index(self.onset) + 1
        found = [step.unseen for step in self.steps[:last] if step.unseen is not None]
        return (min(found), max(found)) if found else None

    @property
    def numbers(self) -> dict[str, Any]:
        verdict, onset = self.lottery.verdict, self.onset
        return {
            "architecture": self.lottery.architecture,
            "degrades_at_sparsity": onset and onset.sparsity,
            "reason": self.reason or (None if onset else "no ticket is shown to be below dense"),
            "last_sparsity_within_tolerance": _within(self.lottery),
            "tolerance": self.lottery.tolerance,
            "verdict": verdict.outcome,
            "smallest_and_largest_drop_unseen": self.unseen,
            "sparsities": [
                {"sparsity": step.sparsity, "one_sided": asdict(step.bounds), "two_sided": asdict(step.difference)}
                for step in self.steps
            ],
        }


def degradation(lotteries: Mapping[str, Lottery]) -> Answer:
    """The answer: LeNet compared with the others, then each lottery by itself."""
    declines = {name: Decline(lotteries[name]) for name in TITLE if name in lotteries}
    sentences = [_compared(declines, "lenet", "head")]
    if "cnn" in declines:
        sentences.append(_compared(declines, "lenet", "cnn"))
    for name in TITLE:
        sentences += _of(declines[name]) if name in declines else []
    sentences.append("Not corrected for the number of sparsities looked at.")
    return Answer(
        DEGRADATION,
        tuple(sentences),
        {name: declines[name].numbers if name in declines else {"reason": not_run(name)} for name in TITLE},
    )


def _compared(declines: Mapping[str, Decline], first: str, second: str) -> str:
    names = (first, second)
    pair = f"{begun(TITLE[first])} and {TITLE[second]} cannot be compared"
    missing = [not_run(name) for name in names if name not in declines]
    unknown = [f"{declines[n].reason} ({TITLE[n]})" for n in names if n in declines and declines[n].reason]
    if missing or unknown:
        return f"{pair}: {' and '.join(missing + unknown)}."
    a, b = declines[first], declines[second]
    if a.onset and b.onset:
        return _both(TITLE[first], a.onset.sparsity, TITLE[second], b.onset.sparsity)
    if not a.onset and not b.onset:
        return (
            f"Neither {TITLE[first]} (up to {share(a.steps[-1].sparsity)} sparsity) nor {TITLE[second]} (up to "
            f"{share(b.steps[-1].sparsity)}) is shown to degrade."
        )
    return _one(TITLE[first], a, TITLE[second], b) if a.onset else _one(TITLE[second], b, TITLE[first], a)


def _both(first: str, early: float, second: str, late: float) -> str:
    if share(early) == share(late):
        return f"{begun(first)} and {second} are shown to degrade from the same sparsity on, {share(early)}."
    return (
        f"{begun(first)} is shown to degrade from {share(early)} sparsity on, {second} from {share(late)} on: where "
        "replicates spread more, the same drop is shown later."
    )


def _one(first: str, fallen: Decline, second: str, standing: Decline) -> str:
    """Only one is shown to degrade."""
    assert fallen.onset is not None
    begins = f"{begun(first)} is shown to degrade from {share(fallen.onset.sparsity)} sparsity on"
    deepest = standing.steps[-1].sparsity
    if deepest < fallen.onset.sparsity:
        return (
            f"{begins}; {second} is not shown to degrade but was pruned to {share(deepest)} only, so they "
            "cannot be compared."
        )
    return f"{begins}, {second} is not shown to degrade up to {share(deepest)}."


def _of(decline: Decline) -> list[str]:
    """What a lottery shows by itself."""
    title, steps, onset = begun(decline.lottery.title), decline.steps, decline.onset
    within = _within(decline.lottery)
    tolerance = f"{decline.lottery.tolerance:g} point(s)"
    if decline.reason is not None:
        said = [f"{title}: where accuracy begins to degrade is not known, {decline.reason}."]
    elif onset is None:
        last = steps[-1]
        said = [
            f"{title}: no ticket is shown to be below dense up to {share(last.sparsity)} sparsity (there "
            f"{signed(last.difference)}, n = {last.difference.n})."
        ]
    else:
        assert onset.bounds.upper is not None  # without a bound nothing is degraded
        said = [
            f"{title}: the smallest sparsity whose ticket is below dense is {share(onset.sparsity)} "
            f"({signed(onset.difference)}, n = {onset.difference.n}; one-sided 95 % bound "
            f"{points(onset.bounds.upper)})."
        ]
        later = steps[steps.index(onset) + 1 :]
        standing = sum(not step.degraded for step in later)
        if standing:
            said.append(
                f"{standing} of {len(later)} sparser ticket(s) not shown to be: chance may have had a hand in it."
            )
    if within is not None:
        said.append(f"The last sparsity shown to be within {tolerance} of dense is {share(within)}.")
    elif steps:
        said.append(f"No sparsity is shown to be within {tolerance} of dense.")
    if decline.unseen is not None:
        low, high = decline.unseen
        span = f"{high:.2f} points" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f} points by sparsity"
        said.append(f"A drop of less than {span} could not have been seen with {steps[0].bounds.n} replicates.")
    return said


def _within(lottery: Lottery) -> float | None:
    """The largest sparsity that the verdict confirmed within tolerance."""
    verdict = lottery.verdict
    if verdict.outcome not in ("winning", "matching") or verdict.density is None:
        return None
    return 1 - verdict.density
