"""Accuracies of two networks compared replicate by replicate, as every study compares them."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.reports.intervals import Paired
from tombola.runs.rows import Row


def paired_accuracy(ours: Sequence[Row], theirs: Sequence[Row], part: str = "test") -> Paired:
    """Ours minus theirs in points of final `part` accuracy, paired by replicate.

    The rows hold `replicate`, `<part>_accuracy` and `<part>_examples`, one row a replicate. An accuracy is a fraction
    of a finite number of examples, and a difference moves in steps of 100 / examples. Raises ValueError where no
    replicate is in both.
    """
    column = f"{part}_accuracy"
    mine, others = ({row["replicate"]: 100 * row[column] for row in rows} for rows in (ours, theirs))
    step = 100 / min((row[f"{part}_examples"] for row in ours), default=1)
    found = Paired.of(mine, others, step)
    if found is None:
        raise ValueError("no replicate has both networks")
    return found
