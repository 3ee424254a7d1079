"""Two networks compared replicate by replicate, as every study compares them: better is positive."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.reports.intervals import Paired
from tombola.runs.rows import Row
from tombola.studies.base.measures import ACCURACY
from tombola.training.task import Measure


def paired_accuracy(ours: Sequence[Row], theirs: Sequence[Row], part: str = "test") -> Paired:
    """Ours minus theirs in points of final `part` accuracy, paired by replicate; see `paired_measure`."""
    return paired_measure(ours, theirs, part)


def paired_measure(
    ours: Sequence[Row], theirs: Sequence[Row], part: str = "test", measure: Measure = ACCURACY
) -> Paired:
    """How much better ours are than theirs by `<part>_<measure>`, in the measure's unit, paired by replicate.

    Positive is better, whether more or less of it is. The rows hold `replicate`, the measure and `<part>_examples`, one
    row a replicate. An accuracy that is a fraction of the examples moves in steps of 100 / examples (`counts_answers`);
    what else a measure may be moves in none. Raises ValueError where no replicate is in both.
    """
    column, scale = f"{part}_{measure.name}", measure.scale if measure.higher_is_better else -measure.scale
    mine, others = ({row["replicate"]: scale * row[column] for row in rows} for rows in (ours, theirs))
    step = 0.0
    if counts_answers(ours, measure):
        step = measure.scale / min((row[f"{part}_examples"] for row in ours), default=1)
    found = Paired.of(mine, others, step)
    if found is None:
        raise ValueError("no replicate has both networks")
    return found


def counts_answers(rows: Sequence[Row], measure: Measure) -> bool:
    """Whether the measure is the fraction of the examples that are answered rightly. An accuracy need not be: of a task
    whose examples have scores (`test_each`) it may be over tokens, or anything else."""
    return measure.name == ACCURACY.name and not any("test_each" in row for row in rows)
