"""Question 2: does the ticket match or beat dense, and does a control win? A pure function of training rows.

A lottery's verdict says whether its ticket matches. It *beats* dense where the two-sided 95 % interval of the
difference in test accuracy, paired by replicate, lies above 0: the density was chosen on validation by the same
networks, so half of that interval's error is all that a claim of more may cost (see `lottery.verdict`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tombola.reports.intervals import Estimate
from tombola.runs.rows import Row
from tombola.studies.hybrid.questions import CONTEST, TITLE, Answer, Lottery, not_run
from tombola.studies.hybrid.summaries import side
from tombola.studies.hybrid.wording import begun, listed, share, signed
from tombola.studies.lottery.charts import BRANCH_NAME
from tombola.studies.lottery.verdict import CONTROLS
from tombola.studies.paired import paired_accuracy

Standing = Literal["beats dense", "matches dense", "does not match dense", "is undecided"]


@dataclass(frozen=True)
class Contest:
    """A lottery's ticket against dense and its controls, at the round that the verdict speaks of."""

    lottery: Lottery

    def versus(self, branch: str) -> Estimate | None:
        """Ticket minus a branch in points of test accuracy; None where one of them was not trained."""
        index = self.lottery.verdict.round
        if index is None:
            return None
        theirs = self.lottery.branch(branch, 0 if branch == "dense" else index)
        return difference(self.lottery.branch("ticket", index), theirs) if theirs else None

    @property
    def standing(self) -> Standing:
        outcome = self.lottery.verdict.outcome
        if outcome in ("winning", "matching"):
            return "beats dense" if side(self.versus("dense")) == "above" else "matches dense"
        return "does not match dense" if outcome == "not winning" else "is undecided"

    @property
    def better_controls(self) -> list[str]:
        """The controls that are shown to be better than the ticket."""
        return [control for control in CONTROLS if side(self.versus(control)) == "below"]

    @property
    def numbers(self) -> dict[str, Any]:
        versus = {branch: self.versus(branch) for branch in ("dense", *CONTROLS)}
        return {
            "architecture": self.lottery.architecture,
            "standing": self.standing,
            "verdict": asdict(self.lottery.verdict),
            "test_difference": {branch: found and asdict(found) for branch, found in versus.items()},
            "controls_that_win": self.better_controls,
        }


def difference(ours: Sequence[Row], theirs: Sequence[Row]) -> Estimate:
    """Ours minus theirs in points of test accuracy with its two-sided interval, paired by replicate; training rows."""
    return paired_accuracy(ours, theirs).interval


def contest(lotteries: Mapping[str, Lottery]) -> Answer:
    """The answer: who matches and who beats dense, then each lottery's verdict."""
    contests = {name: Contest(lotteries[name]) for name in TITLE if name in lotteries}
    sentences = [_lead(contests)]
    for name, found in contests.items():
        sentences += _of(name, found)
    missing = [not_run(name) for name in TITLE if name not in lotteries]
    if missing:
        sentences.append(f"{begun(listed(missing))}.")
    return Answer(
        CONTEST,
        tuple(sentences),
        {name: contests[name].numbers if name in contests else {"reason": not_run(name)} for name in TITLE},
    )


def _lead(contests: Mapping[str, Contest]) -> str:
    """`The ticket of the CNN beats dense, that of LeNet matches dense.`"""
    if not contests:
        return "Not known: no lottery was run."
    said = [f"{TITLE[name]}'s ticket {found.standing}" for name, found in contests.items()]
    return f"{begun('; '.join(said))}."


def _of(name: str, found: Contest) -> list[str]:
    """The verdict of a lottery, whether more than matching is shown, and every control that wins."""
    verdict, versus = found.lottery.verdict, found.versus("dense")
    said = [f"{begun(found.lottery.title)}, verdict: {_uncapitalised(verdict.sentence)}"]
    if versus is not None and verdict.outcome in ("winning", "matching"):
        beats = {
            "above": "lies above 0: it beats dense",
            "open": "is not above 0: it is not shown to beat dense",
            "below": "lies below 0: it is worse than dense, by less than the tolerance",
        }[side(versus)]
        where = f"at {share(1 - (verdict.density or 0))} sparsity on test, ticket − dense is {signed(versus)}"
        if versus.half_width is not None:
            said.append(f"{begun(where)}; the interval {beats}.")
    for control in found.better_controls:
        better = found.versus(control)
        assert better is not None
        said.append(
            f"The control wins: {BRANCH_NAME[control]} is better than the ticket of {TITLE[name]} (ticket − "
            f"{control} {signed(better)})."
        )
    return said


def _uncapitalised(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
