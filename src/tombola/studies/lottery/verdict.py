"""The verdict: did a ticket win? A pure function of the rows, with differences paired by replicate.

A fixed sequence keeps the error rate: densities are tested on validation from dense downward and the first
failure ends the search, so no correction for many densities is needed. The density found is confirmed once
on test, and only there compared with the controls. Each verdict is one look of several that a run may get when it is
extended; `looks` has the levels, which cover all of them. A network that learned nothing or diverged can match nothing,
and nothing can match it. What is decided holds for this test set; what is known of new examples is said beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from tombola.reports.intervals import Bounds, detectable, power
from tombola.runs.rows import Row
from tombola.studies.base.measures import ACCURACY, Scale
from tombola.studies.base.new_examples import NewExamples, for_new_examples
from tombola.studies.base.paired import paired_measure
from tombola.studies.base.soundness import faults_of
from tombola.studies.lottery.controls import controls, deciding
from tombola.studies.lottery.looks import Levels, Looks
from tombola.training.task import Measure

Outcome = Literal["winning", "matching", "not winning", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """The outcome, the round it speaks of (None before any was tested) and the evidence, in the unit of the `measure`:
    points of accuracy, unless the task has another. Differences are positive where the ticket is better.

    `versus` has bounds on this test set by branch, dense and the controls, at the confidence that they name;
    `new_examples` has them for new examples, each with a reason where it is not known. The claim of a winning ticket
    is over the controls that decide; of others only the interval is said. `power` is the probability that this many
    replicates, at the spread seen, tell a ticket from a control to which it is truly superior by the tolerance,
    `detectable` the smallest true superiority that they tell in 80 % of studies (of the controls that decide, the worse
    one; without any, at the spread of the differences to dense). `first_look` is the number of replicates of the run's
    first verdict, None where the table does not say. `faults` says which networks learned nothing or diverged, by
    branch, at the verdict's round.
    """

    outcome: Outcome
    sentence: str
    round: int | None
    density: float | None
    tolerance: float
    replicates: int
    replicates_needed: int | None = None
    versus: dict[str, Bounds] = field(default_factory=dict)
    power: float | None = None
    detectable: float | None = None
    dense_confidence: float = 0.0
    control_confidence: float = 0.0
    first_look: int | None = None
    new_examples: dict[str, NewExamples] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    measure: Measure = ACCURACY

    @property
    def scale(self) -> Scale:
        """How its numbers are written."""
        return Scale.of(self.measure, self.tolerance)

    @property
    def entry(self) -> dict[str, Any]:
        """For a program; of accuracies the measure goes without saying."""
        entry = asdict(self)
        if self.measure == ACCURACY:
            del entry["measure"]
        return entry


def judge(rows: Sequence[Row], tolerance: float, measure: Measure = ACCURACY) -> Verdict:
    """The verdict on the complete replicates in `rows`; `tolerance` in the unit of the measure."""
    return _Judge(rows, tolerance, measure).verdict()


def not_judged(replicates: int, asked: int, tolerance: float, measure: Measure = ACCURACY) -> Verdict:
    """Of a run that has not all the replicates it was asked for: judging it now would be a look of its own."""
    sentence = f"Not judged yet: {replicates} of {asked} replicates are complete."
    return Verdict("undecided", sentence, None, None, tolerance, replicates, measure=measure)


class _Judge:
    """The rows of a study by round and branch, and the levels of this look at them."""

    def __init__(self, rows: Sequence[Row], tolerance: float, measure: Measure) -> None:
        self.tolerance, self.measure, self.scale = tolerance, measure, Scale.of(measure, tolerance)
        self.groups: dict[tuple[int, str], list[Row]] = {}
        for row in rows:
            if row["kind"] == "training":
                index = 0 if row["branch"] == "dense" else row["round"]
                self.groups.setdefault((index, row["branch"]), []).append(row)
        self.dense = self.groups.get((0, "dense"), [])
        self.looks = Looks.of(rows)
        self.levels: Levels = self.looks.levels(len(self.dense))

    def verdict(self) -> Verdict:
        rounds = sorted(index for index, branch in self.groups if branch == "ticket")
        if not rounds:
            return self._found("undecided", "Undecided: no ticket was trained.")
        if (fault := self._faults(self.dense, "validation") or self._faults(self.dense)) is not None:
            sentence = f"Undecided: the dense network {fault}, so that there is nothing to match."
            return self._found("undecided", sentence, faults={"dense": fault})
        passed = None
        for index in rounds:
            bounds = self._versus("ticket", "dense", index, "validation")
            fault = self._faults(self.groups[index, "ticket"], "validation")
            if fault is not None or not _above(bounds, -self.tolerance):
                return self._nothing_passed(index, bounds, fault) if passed is None else self._confirm(passed)
            passed = index
        return self._confirm(rounds[-1])

    def _confirm(self, index: int) -> Verdict:
        """The single look at the test set, at the smallest density that passed on validation."""
        ticket = self.groups[index, "ticket"]
        versus_dense = self._versus("ticket", "dense", index, "test")
        versus = {c: self._versus("ticket", c, index, "test") for c in controls if (index, c) in self.groups}
        branches = {"dense": self.dense, "ticket": ticket, **{c: self.groups[index, c] for c in versus}}
        decide = [name for name in deciding() if name in versus]
        faults = {branch: fault for branch, rows in branches.items() if (fault := self._faults(rows)) is not None}
        new = {
            other: for_new_examples(ticket, branches[other], 1 - self._level(other), self.measure)
            for other in ("dense", *versus)
        }
        needed = None
        if "ticket" in faults:
            outcome, sentence = self._faulty(versus_dense, self._at(index), faults["ticket"])
        elif not _above(versus_dense, -self.tolerance):
            outcome, needed, sentence = self._not_confirmed(versus_dense, self._at(index))
        else:
            won = len(decide) == len(deciding()) and all(_above(versus[name], 0.0) for name in decide)
            outcome = "winning" if won else "matching"
            sentence = self._matches(index, versus_dense, versus, won)
            sentence += _of_controls(faults) + self._of_new_examples({n: new[n] for n in ("dense", *decide)})
        return self._found(
            outcome,
            sentence,
            index,
            needed,
            {"dense": versus_dense, **versus},
            new_examples=new,
            faults=faults,
        )

    def _matches(self, index: int, versus_dense: Bounds, versus: Mapping[str, Bounds], won: bool) -> str:
        within = (
            f"{self._at(index)} is within {self.scale.amount(self.tolerance)} of dense on this test set "
            f"({self.scale.bounded(versus_dense)})"
        )
        if won:
            better = " and ".join(f"{control} ({self.scale.bounded(versus[control])})" for control in deciding())
            return f"Winning: {within} and better than {better}."
        return f"Matching, not winning: {within}, but {self._what_lacks(versus)}."

    def _nothing_passed(self, index: int, bounds: Bounds, fault: str | None) -> Verdict:
        at, needed = f"on validation {self._at(index)}", None
        if fault is not None:
            outcome, sentence = self._faulty(bounds, at, fault)
        else:
            outcome, needed, sentence = self._not_confirmed(bounds, at)
        faults = {} if fault is None else {"ticket": fault}
        return self._found(outcome, sentence, index, needed, {"dense": bounds}, faults=faults)

    def _not_confirmed(self, bounds: Bounds, at: str) -> tuple[Outcome, int | None, str]:
        """Either it is shown to be worse, or more replicates would tell."""
        tolerance, gap = self.scale.amount(self.tolerance), self.scale.gap(bounds.mean)
        if bounds.upper is not None and bounds.upper < -self.tolerance:
            said = f"Not winning: {at} is worse than dense by more than {tolerance} "
            return "not winning", None, f"{said}({gap}, at most {self.scale.gap(bounds.upper, unit=False)})."
        if bounds.sd is None:
            said = f"Undecided: one replicate gives no interval ({at}: {gap}); "
            return "undecided", None, f"{said}run with --replicates 5 or more."
        needed = self.looks.advised(abs(bounds.mean + self.tolerance), bounds.sd, bounds.n) if bounds.sd else None
        advice = f"about {needed:,} replicates would decide" if needed else "10,000 replicates would not decide"
        said = f"Undecided: {at} may or may not be within {tolerance} of dense "
        return "undecided", needed, f"{said}({self.scale.bounded(bounds)}); {advice}."

    def _what_lacks(self, versus: Mapping[str, Bounds]) -> str:
        parts = []
        for control in deciding():
            bounds = versus.get(control)
            if bounds is None:
                parts.append(f"the control {control} was not run")
            elif not _above(bounds, 0.0):
                needed = self.looks.advised(bounds.mean, bounds.sd, bounds.n, controls=True) if bounds.sd else None
                more = f", about {needed:,} replicates would show such a difference" if needed else ""
                parts.append(f"not shown to be better than {control} ({self.scale.bounded(bounds)}{more})")
        return " and ".join(parts)

    def _versus(self, ours: str, theirs: str, index: int, part: str) -> Bounds:
        other = self.dense if theirs == "dense" else self.groups[index, theirs]
        pair = paired_measure(self.groups[index, ours], other, part, self.measure)
        return pair.bounds(1 - self._level(theirs))

    def _faults(self, rows: Sequence[Row], part: str = "test") -> str | None:
        return faults_of(rows, part, self.measure)

    def _level(self, other: str) -> float:
        return self.levels.dense if other == "dense" else self.levels.controls

    def _at(self, index: int) -> str:
        return f"the ticket with {self.groups[index, 'ticket'][0]['density']:.1%} of the weights"

    def _found(
        self,
        outcome: Outcome,
        sentence: str,
        index: int | None = None,
        needed: int | None = None,
        versus: dict[str, Bounds] | None = None,
        new_examples: dict[str, NewExamples] | None = None,
        faults: dict[str, str] | None = None,
    ) -> Verdict:
        found = versus or {}
        spreads = [found[name] for name in deciding() if name in found] or [found[name] for name in found][:1]
        confidence = 1 - self.levels.controls
        return Verdict(
            outcome,
            sentence + (self.scale.direction if found else ""),
            index,
            None if index is None else self.groups[index, "ticket"][0]["density"],
            self.tolerance,
            len(self.dense),
            needed,
            found,
            min((power(self.tolerance, b.sd, b.n, confidence) for b in spreads if b.sd), default=None),
            max((detectable(b.sd, b.n, confidence) for b in spreads if b.sd), default=None),
            1 - self.levels.dense,
            confidence,
            self.looks.first,
            new_examples or {},
            faults or {},
            self.measure,
        )

    def _faulty(self, bounds: Bounds, at: str, fault: str) -> tuple[Outcome, str]:
        """A ticket of which a training learned nothing or diverged: it matches nothing, whatever the mean says."""
        worse, gap = bounds.upper is not None and bounds.upper < -self.tolerance, self.scale.gap(bounds.mean)
        if worse or " in replicate" not in fault:
            return "not winning", f"Not winning: {at} {fault} ({gap} to dense)."
        return "undecided", f"Undecided: {at} {fault}, so that it matches nothing ({gap} to dense)."

    def _of_new_examples(self, new: Mapping[str, NewExamples]) -> str:
        """What the same bounds are for examples that nobody has tested with yet; empty where that is not known."""
        known = {name: found.bounds for name, found in new.items() if found.bounds is not None}
        if len(known) < len(new):
            return ""
        shown = [
            f"{self.scale.gap(bounds.lower or 0.0, unit=False)} {'to dense' if name == 'dense' else f'over {name}'}"
            for name, bounds in known.items()
        ]
        short = [
            name if name != "dense" else "dense within the tolerance"
            for name, bounds in known.items()
            if not _above(bounds, -self.tolerance if name == "dense" else 0.0)
        ]
        lacks = f"; there it is not shown against {' and '.join(short)}" if short else ""
        return f" For new examples: at least {', '.join(shown)}{lacks}."


def _of_controls(faults: Mapping[str, str]) -> str:
    """Beating a control that learned nothing is easy, and is said."""
    said = [f"{control} {faults[control]}" for control in controls if control in faults]
    return f" The control {' and '.join(said)}." if said else ""


def _above(bounds: Bounds, value: float) -> bool:
    return bounds.lower is not None and bounds.lower > value
