"""What a difference would be on new examples, not only on those that this data set happens to test with.

An interval over replicates knows how trainings vary. Where all replicates are tested on the same examples, it does not
know that others could have been drawn. From the answers of every replicate to every example both are known: with
d(r, i) the difference of replicate r on example i, a crossed random-effects model gives the variance of the mean as
s² / n + v / m, where s is the standard deviation over n replicates and v the variance over m examples of what all
replicates have in common (its estimate: the mean covariance of two replicates over examples). Where each replicate
draws its own test examples, replicates overlap in what they train on and test with; s² · (1 / n + test / training
examples) is the correction of Nadeau & Bengio 2003 (Inference for the generalization error, Machine Learning 52).

Rows hold the answers as `test_correct`, and in `test_labels` which examples they are of.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tombola.errors import StorageError
from tombola.reports.intervals import CONFIDENCE, Bounds, t_quantile
from tombola.runs.rows import Row
from tombola.studies.base.paired import paired_accuracy

NOT_RECORDED = "the rows do not say which test examples were answered correctly"


@dataclass(frozen=True)
class NewExamples:
    """A difference in points with its one-sided bounds for new examples, or the `reason` why there are none."""

    bounds: Bounds | None
    reason: str | None = None


def answer_columns(correct: NDArray[np.bool_], targets: NDArray[np.int64]) -> Row:
    """The columns of a row that say which test examples (n,) were answered correctly, and which examples these are."""
    packed = base64.b64encode(zlib.compress(np.packbits(correct).tobytes(), 9)).decode()
    labels = np.ascontiguousarray(targets, dtype="<i8").tobytes()
    return {"test_correct": packed, "test_labels": hashlib.sha256(labels).hexdigest()[:16]}


def correct_of(row: Row) -> NDArray[np.bool_]:
    """Which test examples (n,) a network answered correctly; StorageError where the column is damaged."""
    count = row["test_examples"]
    try:
        reader = zlib.decompressobj()
        packed = reader.decompress(base64.b64decode(row["test_correct"], validate=True), count // 8 + 2)
        found = np.unpackbits(np.frombuffer(packed, np.uint8), count=count).astype(bool) if reader.eof else None
    except (binascii.Error, zlib.error, ValueError, TypeError):
        found = None
    if found is None or int(found.sum()) != round(row["test_accuracy"] * count):
        raise StorageError(
            f"rows: test_correct of replicate {row['replicate']}, round {row['round']}, {row['branch']} is damaged: it "
            "does not have the row's accuracy"
        )
    return found


def for_new_examples(ours: Sequence[Row], theirs: Sequence[Row], confidence: float = CONFIDENCE) -> NewExamples:
    """Ours minus theirs in points of test accuracy, paired by replicate, with bounds that hold for new examples."""
    both = sorted({row["replicate"] for row in ours} & {row["replicate"] for row in theirs})
    by_replicate = [{row["replicate"]: row for row in rows} for rows in (ours, theirs)]
    pairs = [(by_replicate[0][index], by_replicate[1][index]) for index in both]
    if any("test_correct" not in row or "test_labels" not in row for pair in pairs for row in pair):
        return NewExamples(None, NOT_RECORDED)
    if len(pairs) < 2:
        return NewExamples(None, "one replicate has no spread")
    here = paired_accuracy(ours, theirs).bounds(confidence)
    assert here.sd is not None  # two replicates or more
    trainings = here.sd**2 / here.n
    if len({row["test_labels"] for pair in pairs for row in pair}) == 1:
        examples, degrees = _shared(pairs), math.inf
    else:
        mine = pairs[0][0]
        examples, degrees = here.sd**2 * mine["test_examples"] / mine["train_examples"], here.n - 1
    return NewExamples(_bounds(here, trainings, examples, degrees))


def _shared(pairs: Sequence[tuple[Row, Row]]) -> float:
    """The variance, in points², that the choice of shared test examples gives to a mean difference: v / m."""
    differences = np.stack([100.0 * (1 * correct_of(mine) - 1 * correct_of(other)) for mine, other in pairs])
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
