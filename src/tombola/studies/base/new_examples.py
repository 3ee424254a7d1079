"""What a difference would be on new examples, not only on those that this data set happens to test with.

An interval over replicates knows how trainings vary. Where all replicates are tested on the same examples, it does not
know that others could have been drawn. From the answers of every replicate to every example both are known: with
d(r, i) the difference of replicate r on example i, a crossed random-effects model gives the variance of the mean as
s² / n + v / m, where s is the standard deviation over n replicates and v the variance over m examples of what all
replicates have in common (its estimate: the mean covariance of two replicates over examples). Where each replicate
draws its own test examples, replicates overlap in what they train on and test with; s² · (1 / n + test / training
examples) is the correction of Nadeau & Bengio 2003 (Inference for the generalization error, Machine Learning 52).

Rows hold the answers as `test_correct`, and in `test_labels` which examples they are of. Of a task whose examples have
scores and no right answers, `test_each` holds the measure of every example.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tombola.errors import StorageError
from tombola.reports.intervals import CONFIDENCE, Bounds, t_quantile
from tombola.runs.rows import Row
from tombola.studies.base.measures import ACCURACY
from tombola.studies.base.paired import counts_answers, paired_measure
from tombola.training.task import Measure

NOT_RECORDED = "the rows do not say which test examples were answered correctly"
NO_SCORES = "the rows have no score of each test example"
MOST_SCORES = 20_000
"""Of a test set with more examples rows keep no score of each: 80 kB a row."""
AGREE = 1e-3
"""How far, relatively, the mean of the examples' scores may be from the measure: they are rounded to float32."""


@dataclass(frozen=True)
class NewExamples:
    """A difference in the measure's unit with one-sided bounds for new examples, or the `reason` why there are none."""

    bounds: Bounds | None
    reason: str | None = None


def answer_columns(correct: NDArray[np.bool_], targets: NDArray[np.int64]) -> Row:
    """The columns of a row that say which test examples (n,) were answered correctly, and which examples these are."""
    labels = np.ascontiguousarray(targets, dtype="<i8").tobytes()
    return {
        "test_correct": _packed(np.packbits(correct).tobytes()),
        "test_labels": hashlib.sha256(labels).hexdigest()[:16],
    }


def correct_of(row: Row) -> NDArray[np.bool_]:
    """Which test examples (n,) a network answered correctly; StorageError where the column is damaged."""
    count = row["test_examples"]
    packed = _unpacked(row["test_correct"], -(-count // 8))
    found = None if packed is None else np.unpackbits(np.frombuffer(packed, np.uint8), count=count).astype(bool)
    if found is None or int(found.sum()) != round(row["test_accuracy"] * count):
        raise StorageError(
            f"rows: test_correct of replicate {row['replicate']}, round {row['round']}, {row['branch']} is damaged: it "
            "does not have the row's accuracy"
        )
    return found


def score_columns(each: NDArray[np.float32] | None, value: float, checksum: str) -> Row:
    """The columns of a row with a score of every test example (n,), whose mean is the measure's `value`.

    `checksum` is of what the examples are. Where there are no such scores `test_each` is null, and a reason beside it.
    """
    reason = None
    if each is None:
        reason = "the task has no score of each example"
    elif len(each) > MOST_SCORES:
        reason = f"there are more than {MOST_SCORES:,} test examples, and their scores are not kept"
    elif not math.isclose(float(each.mean(dtype=np.float64)), value, rel_tol=AGREE, abs_tol=1e-9):
        reason = "the scores of single examples are not those that networks are compared by"
    if each is None or reason is not None:
        return {"test_each": None, "test_each_reason": reason}
    return {
        "test_each": _packed(each.astype("<f4").tobytes()),
        "test_each_reason": None,
        "test_labels": hashlib.sha256(checksum.encode()).hexdigest()[:16],
    }


def scores_of(row: Row, measure: Measure) -> NDArray[np.float64]:
    """The scores of the test examples (n,); StorageError where the column is damaged."""
    count, value = row["test_examples"], row[f"test_{measure.name}"]
    packed = _unpacked(row["test_each"], 4 * count)
    found = None if packed is None else np.frombuffer(packed, "<f4").astype(np.float64)
    if found is None or not math.isclose(float(found.mean()), value, rel_tol=AGREE, abs_tol=1e-9):
        raise StorageError(
            f"rows: test_each of replicate {row['replicate']}, round {row['round']}, {row['branch']} is damaged: it "
            f"does not have the row's {measure.name}"
        )
    return found


def _packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode()


def _unpacked(text: Any, size: int) -> bytes | None:
    """The `size` bytes that were packed; None where `text` is not what `_packed` gives for so many."""
    try:
        reader = zlib.decompressobj()
        found = reader.decompress(base64.b64decode(text, validate=True), size + 1)
    except (binascii.Error, zlib.error, ValueError, TypeError):
        return None
    return found if reader.eof and len(found) == size else None


def for_new_examples(
    ours: Sequence[Row], theirs: Sequence[Row], confidence: float = CONFIDENCE, measure: Measure = ACCURACY
) -> NewExamples:
    """How much better ours are by test `measure`, in its unit, paired by replicate, with bounds for new examples."""
    both = sorted({row["replicate"] for row in ours} & {row["replicate"] for row in theirs})
    by_replicate = [{row["replicate"]: row for row in rows} for rows in (ours, theirs)]
    pairs = [(by_replicate[0][index], by_replicate[1][index]) for index in both]
    counted = all(counts_answers(pair, measure) for pair in pairs)
    column = "test_correct" if counted else "test_each"
    if any(row.get(column) is None or "test_labels" not in row for pair in pairs for row in pair):
        reasons = [row["test_each_reason"] for pair in pairs for row in pair if row.get("test_each_reason")]
        return NewExamples(None, (reasons or [NOT_RECORDED if counted else NO_SCORES])[0])
    if len(pairs) < 2:
        return NewExamples(None, "one replicate has no spread")
    here = paired_measure(ours, theirs, measure=measure).bounds(confidence)
    assert here.sd is not None  # two replicates or more
    trainings = here.sd**2 / here.n
    if len({row["test_labels"] for pair in pairs for row in pair}) == 1:
        examples, degrees = _shared(pairs, measure), math.inf
    else:
        mine = pairs[0][0]
        examples, degrees = here.sd**2 * mine["test_examples"] / mine["train_examples"], here.n - 1
    return NewExamples(_bounds(here, trainings, examples, degrees))


def _shared(pairs: Sequence[tuple[Row, Row]], measure: Measure) -> float:
    """The variance, in the square of the unit, that the choice of shared test examples gives to a mean: v / m."""
    if all(counts_answers(pair, measure) for pair in pairs):
        right = [(correct_of(mine), correct_of(other)) for mine, other in pairs]
        differences = np.stack([float(measure.scale) * (1 * mine - 1 * other) for mine, other in right])
    else:
        found = [(scores_of(mine, measure), scores_of(other, measure)) for mine, other in pairs]
        differences = np.stack([measure.scale * (mine - other) for mine, other in found])
    n, m = differences.shape
    if m < 2:
        return 0.0
    own = differences.var(1, ddof=1).mean()
    common = (n * differences.mean(0).var(ddof=1) - own) / (n - 1)
    return max(0.0, float(common)) / m


def _bounds(here: Bounds, trainings: float, examples: float, degrees: float) -> Bounds:
    """Bounds of the sum of two variances, never narrower than those on this test set.

    Degrees of freedom after Satterthwaite 1946, where one part has many more than the other.
    """
    whole = trainings + examples
    free = whole**2 / (trainings**2 / (here.n - 1)) if math.isinf(degrees) else degrees
    half = t_quantile(here.confidence, free) * math.sqrt(whole)
    half = max(half, t_quantile(here.confidence, here.n - 1) * math.sqrt(trainings))
    return Bounds(here.mean, here.mean - half, here.mean + half, here.sd, here.n, here.confidence)
