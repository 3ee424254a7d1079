"""Question 1: at which sparsity accuracy begins to degrade. A pure function of training rows.

A ticket *degrades* where its test accuracy is below that of dense: a one-sided paired t test at 5 %, corrected after
Holm for how many sparsities the lottery has. Nothing is chosen on validation here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from tombola.reports.intervals import Bounds, Estimate
from tombola.reports.significance import Judged, judged
from tombola.studies.base.numbers import begun, counted, found_in_most, percent, points, signed, within
from tombola.studies.base.paired import paired_accuracy
from tombola.studies.hybrid.questions import DEGRADATION, TITLE, Answer, Lottery, not_run, numbers_of
from tombola.studies.hybrid.soundness import fault_sentence, faults


@dataclass(frozen=True)
class Step:
    """The tickets of one round against dense, in points of test accuracy."""

    round: int
    sparsity: float
    bounds: Bounds
    judged: Judged

    @property
    def difference(self) -> Estimate:
        return self.judged.difference

    @property
    def degraded(self) -> bool:
        return self.judged.side == "below"


@dataclass(frozen=True)
class Decline:
    """How the tickets of a lottery fare from dense to its sparsest."""

    lottery: Lottery

    @cached_property
    def steps(self) -> list[Step]:
        dense = self.lottery.branch("dense")
        tickets = {index: self.lottery.branch("ticket", index) for index in self.lottery.rounds}
        pairs = {index: paired_accuracy(ticket, dense) for index, ticket in tickets.items()}
        family = judged({index: pair.interval for index, pair in pairs.items()}, "below")
        return [
            Step(index, 1 - ticket[0]["density"], pairs[index].bounds(), family[index])
            for index, ticket in tickets.items()
        ]

    @property
    def onset(self) -> Step | None:
        """The first degraded step; None where none is shown to be."""
        return next((step for step in self.steps if step.degraded), None)

    @property
    def reason(self) -> str | None:
        """Why nothing can be said of where it begins."""
        if not self.steps:
            return "no ticket was trained"
        if all(step.judged.p is None for step in self.steps):
            return "one replicate has no spread"
        if (fault := faults(self.lottery, "dense")) is not None:
            return f"the dense network {fault}"
        return None

    @property
    def detectable(self) -> tuple[float, float] | None:
        """The smallest and largest true drop, by sparsity, that is found in 80 % of such studies."""
        found = [step.judged.detectable for step in self.steps if step.judged.detectable is not None]
        return (min(found), max(found)) if found else None

    @property
    def numbers(self) -> dict[str, Any]:
        verdict, onset = self.lottery.verdict, self.onset
        return {
            "architecture": self.lottery.architecture,
            "part": "test",
            "degrades_at_sparsity": None if self.reason else onset and onset.sparsity,
            "reason": self.reason or (None if onset else "no ticket is shown to be below dense"),
            "last_sparsity_within_tolerance": _within(self.lottery),
            "tolerance": self.lottery.tolerance,
            "verdict": verdict.outcome,
            "smallest_and_largest_detectable_drop": self.detectable,
            "correction": "Holm, over the sparsities of a lottery",
            "sparsities": [
                {
                    "sparsity": step.sparsity,
                    "degraded": step.degraded,
                    "p_adjusted": step.judged.p,
                    "one_sided": asdict(step.bounds),
                    "two_sided": asdict(step.difference),
                }
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
    sentences.append(
        'All of this is test accuracy; "shown" is by one-sided tests at 5 %, corrected for the sparsities of each '
        "lottery (Holm) and not for there being several lotteries."
    )
    return Answer(DEGRADATION, tuple(sentences), numbers_of(declines))


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
            f"Neither {TITLE[first]} (up to {percent(a.steps[-1].sparsity)} sparsity) nor {TITLE[second]} (up to "
            f"{percent(b.steps[-1].sparsity)}) is shown to degrade, which does not show that they do not."
        )
    return _one(TITLE[first], a, TITLE[second], b) if a.onset else _one(TITLE[second], b, TITLE[first], a)


def _both(first: str, early: float, second: str, late: float) -> str:
    if percent(early) == percent(late):
        return f"{begun(first)} and {second} are shown to degrade from the same sparsity on, {percent(early)}."
    return (
        f"{begun(first)} is shown to degrade from {percent(early)} sparsity on, {second} from {percent(late)} on: "
        "where replicates spread more, the same drop is shown later."
    )


def _one(first: str, fallen: Decline, second: str, standing: Decline) -> str:
    """Only one is shown to degrade."""
    assert fallen.onset is not None
    begins = f"{begun(first)} is shown to degrade from {percent(fallen.onset.sparsity)} sparsity on"
    deepest = standing.steps[-1].sparsity
    if deepest < fallen.onset.sparsity:
        return (
            f"{begins}; {second} is not shown to degrade but was pruned to {percent(deepest)} only, so they "
            "cannot be compared."
        )
    return f"{begins}, {second} is not shown to degrade up to {percent(deepest)}."


def _of(decline: Decline) -> list[str]:
    """What a lottery shows by itself."""
    title, steps, onset = begun(decline.lottery.title), decline.steps, decline.onset
    if decline.reason is not None:
        return [f"{title}: where accuracy begins to degrade is not known, {decline.reason}."]
    if onset is None:
        last = steps[-1]
        said = [
            f"{title}: no ticket is shown to be below dense up to {percent(last.sparsity)} sparsity (there "
            f"{signed(last.difference)})."
        ]
    else:
        assert onset.bounds.upper is not None  # without a bound nothing is degraded
        said = [
            f"{title}: the smallest sparsity whose ticket is shown to be below dense is {percent(onset.sparsity)} "
            f"({signed(onset.difference)}; one-sided 95 % upper bound {points(onset.bounds.upper)}, by itself)."
        ]
        later = steps[steps.index(onset) + 1 :]
        standing = sum(not step.degraded for step in later)
        if standing:
            said.append(
                f"{standing} of {len(later)} sparser tickets not shown to be: chance may have had a hand in it."
            )
    said.append(_within_sentence(decline.lottery))
    said.append(f"{begun(found_in_most([step.judged for step in steps], 'by sparsity'))} ({_family(decline)}).")
    return said + [sentence for index in decline.lottery.rounds if (sentence := fault_sentence(decline.lottery, index))]


def _family(decline: Decline) -> str:
    n = decline.steps[0].difference.n
    return f"n = {n}, at the level of the first of {counted(len(decline.steps), 'test')}"


def _within_sentence(lottery: Lottery) -> str:
    """What the verdict says of the tolerance: it chooses a sparsity on validation, and looks at it once on test."""
    near, found = within(lottery.tolerance), _within(lottery)
    if found is not None:
        return (
            f"The sparsest ticket that the verdict shows to be {near} of dense is that of {percent(found)}, chosen on "
            "validation and confirmed on test."
        )
    return f"No ticket is shown to be {near} of dense by the verdict, which chooses one on validation."


def _within(lottery: Lottery) -> float | None:
    """The largest sparsity that the verdict confirmed within tolerance."""
    verdict = lottery.verdict
    if verdict.outcome not in ("winning", "matching") or verdict.density is None:
        return None
    return 1 - verdict.density
