"""A lottery round by round: what answers the first two questions, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.reports.intervals import estimate
from tombola.reports.tables import Table, plus_minus
from tombola.runs.rows import Row
from tombola.studies.base.numbers import MISSING, cell, percent
from tombola.studies.base.paired import paired_accuracy
from tombola.studies.base.soundness import faults_of
from tombola.studies.hybrid.questions import Lottery
from tombola.studies.lottery.controls import controls, deciding

ROUNDS_NOTE = (
    "Final test accuracy in percent, ± half of the 95 % confidence interval of its mean; differences in points of test "
    "accuracy [95 % confidence interval], paired by replicate and each by itself, uncorrected. The last line is the "
    "study's ticket, that of the target density."
)


def rounds_table(lottery: Lottery) -> Table:
    """Sparsity, the ticket's accuracy, its difference to the dense network and to its controls, round by round."""
    dense = lottery.branch("dense")
    shown = [name for name in controls if name in deciding() or lottery.branch(name)]
    columns = ("Sparsity", "Weights", "Test accuracy", "To dense", *(f"To {control}" for control in shown))
    fault = faults_of(dense)
    first = percent(0.0) + ("" if fault is None else f", {fault}")
    body = [(first, f"{dense[0]['kept']:,}", _accuracy(dense), *[MISSING] * (1 + len(shown)))] if dense else []
    for index in lottery.rounds:
        ticket = lottery.branch("ticket", index)
        others = [dense, *(lottery.branch(control, index) for control in shown)]
        gaps = [cell(paired_accuracy(ticket, other).interval) if other else MISSING for other in others]
        fault = faults_of(ticket)
        sparsity = percent(1 - ticket[0]["density"]) + ("" if fault is None else f", {fault}")
        body.append((sparsity, f"{ticket[0]['kept']:,}", _accuracy(ticket), *gaps))
    return Table(columns, body)


def _accuracy(rows: Sequence[Row]) -> str:
    return plus_minus(estimate([100 * row["test_accuracy"] for row in rows]))
