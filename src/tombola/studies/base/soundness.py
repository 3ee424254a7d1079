"""Whether a training came to anything: what learned nothing, or diverged without becoming NaN, can match nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from tombola.reports.intervals import CONFIDENCE, normal_quantile
from tombola.runs.rows import Row
from tombola.studies.base.measures import ACCURACY
from tombola.training.task import Measure

Fault = Literal[
    "learned nothing",
    "diverged",
    "is not shown to be better than the most frequent class",
    "is not shown to be better than one answer for all",
]
UNSHOWN: Fault = "is not shown to be better than the most frequent class"
UNSHOWN_ANSWER: Fault = "is not shown to be better than one answer for all"
DIVERGED = 2.0
"""A training has diverged where its loss is more than this many times that of answering class frequencies."""


def majority_accuracy(targets: Tensor) -> float:
    """The accuracy of always answering the most frequent of the `targets` (n,), as a fraction."""
    return int(torch.bincount(targets).max()) / len(targets)


def frequency_loss(targets: Tensor) -> float:
    """The mean cross-entropy, in nats, of answering the class frequencies of the `targets` (n,): their entropy."""
    fractions = torch.bincount(targets).double() / len(targets)
    fractions = fractions[fractions > 0]
    return float(-(fractions * fractions.log()).sum())


def fault_of(row: Row, part: str = "test", measure: Measure = ACCURACY) -> Fault | None:
    """What is wrong with a training by its `part`; None where nothing is, or where the row does not say."""
    return _plain_fault(row, part, measure) or _chance_fault([row], part, measure)


def _plain_fault(row: Row, part: str, measure: Measure) -> Fault | None:
    """What is wrong with a training, without asking whether chance may have made it good.

    A loss far above that of answering class frequencies (of other tasks: the same answer always, see `Task.naive`) is
    divergence, whatever the accuracy. A network that is no better than always answering the most frequent class (the
    same) learned nothing.
    """
    loss, plain = row.get("train_loss"), row.get("train_frequency_loss", row.get("train_naive_loss"))
    if loss is not None and plain is not None and plain > 0 and loss > DIVERGED * plain:
        return "diverged"
    if (majority := row.get(f"{part}_majority_accuracy")) is not None:
        return "learned nothing" if row[f"{part}_accuracy"] <= majority else None
    gained = _gained(row, part, measure)
    return "learned nothing" if gained is not None and gained <= 0 else None


def _chance_fault(rows: Sequence[Row], part: str, measure: Measure) -> Fault | None:
    """The fault of trainings that chance alone may have made as good as they are."""
    if any(row.get(f"{part}_majority_accuracy") is not None for row in rows):
        return None if _is_shown(rows, part) else UNSHOWN
    gains = [_gained(row, part, measure) for row in rows]
    errors = [row.get(f"{part}_naive_error") for row in rows]
    if None in gains or None in errors:
        return None
    # Over the examples, one-sided at 95 %. Replicates share them, and so tell no more of them together than one does.
    gain, error = (sum(value for value in found if value is not None) / len(rows) for found in (gains, errors))
    return None if gain > normal_quantile(CONFIDENCE) * error else UNSHOWN_ANSWER


def _gained(row: Row, part: str, measure: Measure) -> float | None:
    """How much better a network is than one answer for all; None where the row does not say."""
    naive = row.get(f"{part}_naive_{measure.name}")
    if naive is None:
        return None
    return float(row[f"{part}_{measure.name}"] - naive) * (1 if measure.higher_is_better else -1)


def _is_shown(rows: Sequence[Row], part: str) -> bool:
    """Whether the rows together are above the most frequent class by more than chance allows, where they say.

    One-sided at 95 %, binomial with the normal approximation, over the examples of all replicates.
    """
    if any(row.get(f"{part}_majority_accuracy") is None for row in rows):
        return True
    examples = sum(row[f"{part}_examples"] for row in rows)
    accuracy = sum(row[f"{part}_accuracy"] * row[f"{part}_examples"] for row in rows) / examples
    majority = sum(row[f"{part}_majority_accuracy"] * row[f"{part}_examples"] for row in rows) / examples
    chance = math.sqrt(majority * (1 - majority) / examples)
    return bool(accuracy > majority + normal_quantile(CONFIDENCE) * chance)


def faults_of(rows: Sequence[Row], part: str = "test", measure: Measure = ACCURACY) -> str | None:
    """What is wrong with the trainings of one network, one row a replicate: `diverged in replicate 3 (of 5)`."""
    found: dict[Fault, list[int]] = {}
    for row in sorted(rows, key=lambda row: row["replicate"]):
        if (fault := _plain_fault(row, part, measure)) is not None:
            found.setdefault(fault, []).append(row["replicate"])
    if not found:
        return _chance_fault(rows, part, measure) if rows else None
    if len(found) == 1 and (numbers := next(iter(found.values()))) and len(numbers) == len(rows):
        return next(iter(found))
    return " and ".join(
        f"{fault} in replicate{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))} (of {len(rows)})"
        for fault, numbers in found.items()
    )
