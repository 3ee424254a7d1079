"""Question 2: does the ticket match or beat dense, and does a control win? A pure function of training rows.

Of the study's ticket, that of the target density, on test: its density is in the config, so that nothing is chosen on
validation. It *matches* where the one-sided lower bound of the difference to dense lies above minus the tolerance,
*beats* where it lies above 0, at the levels that this look at the run may spend (`lottery.looks`), and is *below* dense
where question 1 says so, by the same test. What the lottery's verdict says, perhaps of another ticket and on
validation, stands in a sentence of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from tombola.reports.intervals import Bounds, Estimate, Paired
from tombola.reports.significance import Judged, judged
from tombola.studies.base.numbers import begun, found_in_most, listed, points, signed, within
from tombola.studies.base.paired import paired_accuracy
from tombola.studies.hybrid.degradation import Decline, Step
from tombola.studies.hybrid.questions import CONTEST, TITLE, Answer, Lottery, not_run, numbers_of
from tombola.studies.hybrid.soundness import faults
from tombola.studies.lottery.controls import controls, title_of
from tombola.studies.lottery.looks import Levels, Looks

Standing = Literal["beats dense", "matches dense", "is below dense", "does not match dense", "is undecided"]


@dataclass(frozen=True)
class Contest:
    """A lottery's ticket of the target density against dense and its controls."""

    lottery: Lottery

    @property
    def _index(self) -> int:
        assert self.lottery.ticket_round is not None  # a lottery has rounds
        return self.lottery.ticket_round

    @cached_property
    def step(self) -> Step:
        """The ticket against dense, as question 1 has it."""
        return Decline(self.lottery).steps[-1]

    @cached_property
    def _pair(self) -> Paired:
        return paired_accuracy(self.lottery.branch("ticket", self._index), self.lottery.branch("dense"))

    @cached_property
    def _levels(self) -> Levels:
        """What this look at the run may spend of its 5 %."""
        return Looks.of(self.lottery.rows).levels(len(self._pair.values))

    @cached_property
    def bounds(self) -> Bounds:
        """One-sided bounds of ticket minus dense, at the level of this look."""
        return self._pair.bounds(1 - self._levels.dense)

    @cached_property
    def beats(self) -> bool:
        """At the level of a claim of more, which at a first look is that of the two-sided 95 % interval."""
        lower = self._pair.bounds(1 - self._levels.controls).lower
        return lower is not None and lower > 0

    @cached_property
    def controls(self) -> dict[str, Judged]:
        """Ticket minus control, those that were trained; one family."""
        ticket = self.lottery.branch("ticket", self._index)
        found = {control: self.lottery.branch(control, self._index) for control in controls}
        return judged({name: paired_accuracy(ticket, rows).interval for name, rows in found.items() if rows})

    @property
    def fault(self) -> str | None:
        """Which of the two networks learned nothing or diverged: nothing is matched then."""
        for name, index in (("dense", None), ("ticket", self._index)):
            if (fault := faults(self.lottery, name, index)) is not None:
                return f"its {name} network {fault}"
        return None

    @property
    def standing(self) -> Standing:
        tolerance = self.lottery.tolerance
        lower, upper = self.bounds.lower, self.bounds.upper
        if lower is None or upper is None or self.fault is not None:
            return "is undecided"
        if self.beats:
            return "beats dense"
        if lower > -tolerance:
            return "matches dense"
        if upper < -tolerance:
            return "does not match dense"
        return "is below dense" if self.step.degraded else "is undecided"

    @property
    def better_controls(self) -> list[str]:
        """The controls that are shown to be better than the ticket."""
        return [name for name, found in self.controls.items() if found.side == "below"]

    @property
    def numbers(self) -> dict[str, Any]:
        versus: dict[str, Estimate] = {"dense": self.step.difference}
        versus |= {name: found.difference for name, found in self.controls.items()}
        return {
            "architecture": self.lottery.architecture,
            "part": "test",
            "ticket": self.lottery.ticket_numbers,
            "standing": self.standing,
            "fault": self.fault,
            "one_sided": asdict(self.bounds),
            "detectable": self.step.judged.detectable,
            "verdict": asdict(self.lottery.verdict),
            "test_difference": {name: asdict(found) for name, found in versus.items()},
            "controls_that_win": self.better_controls,
        }


def contest(lotteries: Mapping[str, Lottery]) -> Answer:
    """The answer: who matches and who beats dense, then what each lottery shows, and its verdict."""
    contests = {n: Contest(lotteries[n]) for n in TITLE if n in lotteries and lotteries[n].rounds}
    sentences = [_lead(contests)]
    for found in contests.values():
        sentences += _of(found)
    missing = [not_run(name) for name in TITLE if name not in lotteries]
    missing += [f"{TITLE[name]} has no ticket" for name in TITLE if name in lotteries and name not in contests]
    if missing:
        sentences.append(f"{begun(listed(missing))}.")
    return Answer(CONTEST, tuple(sentences), numbers_of(contests))


def _lead(contests: Mapping[str, Contest]) -> str:
    """`On test, at the target density: LeNet's ticket matches dense; the CNN's ticket is undecided.`"""
    if not contests:
        return "Not known: no lottery was run."
    said = [f"{TITLE[name]}'s ticket {_standing(found)}" for name, found in contests.items()]
    return f"On test, at the target density: {'; '.join(said)}."


def _standing(found: Contest) -> str:
    """The standing in words, the tolerance with it where it matters."""
    near = within(found.lottery.tolerance)
    if found.fault is not None:
        return f"cannot match anything, {found.fault}"
    if found.standing == "matches dense":
        return f"matches dense ({near}){', though it is below it' if found.step.degraded else ''}"
    if found.standing == "does not match dense":
        return f"does not match dense (it is not {near})"
    if found.standing == "is below dense":
        return f"is below dense, whether {near} is open"
    return found.standing


def _of(found: Contest) -> list[str]:
    """The ticket against dense and the controls on test; then the lottery's verdict."""
    lottery, near = found.lottery, within(found.lottery.tolerance)
    said = [
        f"{begun(lottery.title)}, ticket with {lottery.ticket_words(found._index)}: ticket − dense is "
        f"{signed(found.step.difference)} on test{_bound(found.bounds)}."
    ]
    if found.standing == "is undecided" and found.fault is None:
        missing = found_in_most([found.step.judged])
        said.append(f"It is neither shown to be {near} of dense nor to be below it: {missing}.")
    elif found.standing == "matches dense":
        said.append(f"The lower bound lies above −{lottery.tolerance:g}; it is not shown to beat dense.")
    elif found.standing == "beats dense":
        said.append("It lies above 0: it beats dense.")
    for control, one in found.controls.items():
        said.append(_control_sentence(lottery, control, one))
    return [*said, _verdict_sentence(found)]


def _bound(bounds: Bounds) -> str:
    if bounds.lower is None:
        return ""
    return f"; one-sided {100 * bounds.confidence:.4g} % lower bound, the level of this look, {points(bounds.lower)}"


def _control_sentence(lottery: Lottery, control: str, one: Judged) -> str:
    name, difference = title_of(control), f"ticket − {control} {signed(one.difference)}"
    if one.side == "below":
        return f"The control wins: {name} is better than the ticket of {TITLE[lottery.name]} ({difference})."
    if one.side == "above":
        return f"It is better than {name} ({difference})."
    if one.p is None:
        return f"It cannot be judged against {name} ({difference})."
    return f"No significant difference to {name} ({difference}; {found_in_most([one])})."


def _verdict_sentence(found: Contest) -> str:
    """Which ticket the lottery's verdict speaks of, and what it says."""
    verdict, lottery = found.lottery.verdict, found.lottery
    said = verdict.sentence[:1].lower() + verdict.sentence[1:]
    if verdict.round is None:
        return f"The lottery's verdict: {said}"
    if verdict.round == found._index:
        return f"The lottery's verdict is of the same ticket: {said}"
    return f"The lottery's verdict is of another ticket, with {lottery.ticket_words(verdict.round)}: {said}"
