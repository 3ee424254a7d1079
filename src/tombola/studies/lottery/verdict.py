"""The verdict: did a ticket win? A pure function of the rows, with differences paired by replicate.

A fixed sequence keeps the error rate: densities are tested on validation from dense downward and the first
failure ends the search, so no correction for many densities is needed. The density found is confirmed once
on test, and only there compared with the controls. Non-inferiority is one-sided at 95 %. The comparison with
the controls is one-sided at 97.5 %: the density was chosen by the same networks' validation accuracy, and
chance that helped a ticket there helps it on test too. With that level a study without an effect is called
winning at most 5 % of the time, whatever the correlation of validation and test (tests simulate it); at 95 %
it would be up to 6.6 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tombola.reports.intervals import Bounds, power, replicates_needed
from tombola.runs.rows import Row, rows_of
from tombola.studies.lottery.metrics import paired_difference

Outcome = Literal["winning", "matching", "not winning", "undecided"]
CONTROLS = ("random", "reinit")
CONTROL_CONFIDENCE = 0.975
POWER_DIFFERENCE = 1.0
"""The true difference, in points of accuracy, for which the power is stated."""


@dataclass(frozen=True)
class Verdict:
    """The outcome, the round it speaks of (None before any was tested) and the evidence, in points."""

    outcome: Outcome
    sentence: str
    round: int | None
    density: float | None
    tolerance: float
    replicates: int
    replicates_needed: int | None
    versus_dense: Bounds | None
    versus_random: Bounds | None
    versus_reinit: Bounds | None
    power: float | None


def judge(rows: Sequence[Row], tolerance: float) -> Verdict:
    """The verdict on the complete replicates in `rows`; `tolerance` in points of accuracy.

    `power` is the probability that this many replicates, at the spread seen, would tell a ticket from a control
    to which it is truly superior by `POWER_DIFFERENCE` points (the smaller one, of two controls); where no
    control was compared, at the spread of the differences to dense.
    """
    trainings = [row for row in rows if row["kind"] == "training"]
    dense = rows_of(trainings, branch="dense")
    rounds = sorted({row["round"] for row in rows_of(trainings, branch="ticket")})
    passed, failed = None, None
    for index in rounds:
        bounds = paired_difference(rows_of(trainings, round=index, branch="ticket"), dense, "validation")
        if not _above(bounds, -tolerance):
            failed = (index, bounds)
            break
        passed = index
    if passed is None:
        return _nothing_passed(trainings, failed, tolerance, len(dense))
    return _confirm(trainings, dense, passed, tolerance)


def _confirm(trainings: Sequence[Row], dense: Sequence[Row], index: int, tolerance: float) -> Verdict:
    """The single look at the test set, at the smallest density that passed on validation."""
    ticket = rows_of(trainings, round=index, branch="ticket")
    versus_dense = paired_difference(ticket, dense, "test")
    versus = {
        control: paired_difference(ticket, found, "test", CONTROL_CONFIDENCE)
        for control in CONTROLS
        if (found := rows_of(trainings, round=index, branch=control))
    }
    density = ticket[0]["density"]
    at = f"the ticket with {density:.1%} of the weights"
    needed = None
    if not _above(versus_dense, -tolerance):
        outcome, needed, sentence = _not_confirmed(versus_dense, tolerance, at)
    elif len(versus) == len(CONTROLS) and all(_above(bounds, 0.0) for bounds in versus.values()):
        outcome = "winning"
        sentence = (
            f"Winning: {at} is within {tolerance:g} point(s) of dense ({_signed(versus_dense)}) and better than "
            f"random ({_signed(versus['random'])}) and reinit ({_signed(versus['reinit'])})."
        )
    else:
        outcome = "matching"
        sentence = f"Matching, not winning: {at} is within {tolerance:g} point(s) of dense ({_signed(versus_dense)})"
        sentence += f", but {_what_lacks(versus)}."
    return Verdict(
        outcome,
        sentence,
        index,
        density,
        tolerance,
        len(dense),
        needed,
        versus_dense,
        versus.get("random"),
        versus.get("reinit"),
        _power(list(versus.values()) or [versus_dense]),
    )


def _nothing_passed(
    trainings: Sequence[Row], failed: tuple[int, Bounds] | None, tolerance: float, replicates: int
) -> Verdict:
    if failed is None:
        sentence = "Undecided: no ticket was trained."
        return Verdict("undecided", sentence, None, None, tolerance, replicates, *[None] * 5)
    index, bounds = failed
    density = rows_of(trainings, round=index, branch="ticket")[0]["density"]
    at = f"the ticket with {density:.1%} of the weights"
    outcome, needed, sentence = _not_confirmed(bounds, tolerance, f"on validation {at}")
    return Verdict(
        outcome, sentence, index, density, tolerance, replicates, needed, bounds, None, None, _power([bounds])
    )


def _not_confirmed(bounds: Bounds, tolerance: float, at: str) -> tuple[Outcome, int | None, str]:
    """Either it is shown to be worse, or more replicates would tell."""
    if bounds.upper is not None and bounds.upper < -tolerance:
        return (
            "not winning",
            None,
            f"Not winning: {at} is worse than dense by more than {tolerance:g} point(s) " + (f"({_signed(bounds)})."),
        )
    if bounds.sd is None:
        return (
            "undecided",
            None,
            f"Undecided: one replicate gives no interval ({at}: {bounds.mean:+.2f} points); "
            + ("run with --replicates 5 or more."),
        )
    needed = replicates_needed(abs(bounds.mean + tolerance), bounds.sd)
    advice = f"about {needed} replicates would decide" if needed else "10,000 replicates would not decide"
    return (
        "undecided",
        needed,
        f"Undecided: {at} may or may not be within {tolerance:g} point(s) of dense "
        + (f"({_signed(bounds)}); {advice}."),
    )


def _what_lacks(versus: dict[str, Bounds]) -> str:
    parts = []
    for control in CONTROLS:
        bounds = versus.get(control)
        if bounds is None:
            parts.append(f"the control {control} was not run")
        elif not _above(bounds, 0.0):
            needed = replicates_needed(bounds.mean, bounds.sd, CONTROL_CONFIDENCE) if bounds.sd else None
            more = f", about {needed} replicates would show such a difference" if needed else ""
            parts.append(f"not shown to be better than {control} ({_signed(bounds)}{more})")
    return " and ".join(parts)


def _above(bounds: Bounds, value: float) -> bool:
    return bounds.lower is not None and bounds.lower > value


def _power(bounds: Sequence[Bounds]) -> float | None:
    """The smallest power of the given comparisons at `POWER_DIFFERENCE`; None without any that has a spread."""
    known = [power(POWER_DIFFERENCE, b.sd, b.n, CONTROL_CONFIDENCE) for b in bounds if b.sd]
    return min(known) if known else None


def _signed(bounds: Bounds) -> str:
    """`+0.34 points, at least -0.10`: the mean and its one-sided lower bound."""
    bound = "" if bounds.lower is None else f", at least {bounds.lower:+.2f}"
    return f"{bounds.mean:+.2f} points{bound}"
