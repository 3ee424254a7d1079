"""Whether a training came to anything: what learned nothing, or diverged without becoming NaN, can match nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from tombola.reports.intervals import CONFIDENCE, normal_quantile
from tombola.runs.rows import Row

Fault = Literal["learned nothing", "diverged"]
DIVERGED = 2.0
"""What learned nothing has diverged where its loss is more than this many times that of answering class frequencies."""


def majority_accuracy(targets: Tensor) -> float:
    """The accuracy of always answering the most frequent of the `targets` (n,), as a fraction."""
    return int(torch.bincount(targets).max()) / len(targets)


def frequency_loss(targets: Tensor) -> float:
    """The mean cross-entropy, in nats, of answering the class frequencies of the `targets` (n,): their entropy."""
    fractions = torch.bincount(targets).double() / len(targets)
    fractions = fractions[fractions > 0]
    return float(-(fractions * fractions.log()).sum())


def fault_of(row: Row, part: str = "test") -> Fault | None:
    """What is wrong with a training by its `part`; None where nothing is, or where the row does not say.

    A network has learned something where its accuracy is above that of always answering the most frequent class by more
    than chance allows: one-sided at 95 %, binomial with the normal approximation.
    """
    majority = row.get(f"{part}_majority_accuracy")
    if majority is None:
        return None
    chance = math.sqrt(majority * (1 - majority) / row[f"{part}_examples"])
    if row[f"{part}_accuracy"] > majority + normal_quantile(CONFIDENCE) * chance:
        return None
    loss, plain = row.get("train_loss"), row.get("train_frequency_loss")
    return "diverged" if loss is not None and plain is not None and loss > DIVERGED * plain else "learned nothing"


def faults_of(rows: Sequence[Row], part: str = "test") -> str | None:
    """What is wrong with the trainings of one network, one row a replicate: `diverged in replicate 3 (of 5)`."""
    found: dict[Fault, list[int]] = {}
    for row in sorted(rows, key=lambda row: row["replicate"]):
        if (fault := fault_of(row, part)) is not None:
            found.setdefault(fault, []).append(row["replicate"])
    if not found:
        return None
    if len(found) == 1 and (numbers := next(iter(found.values()))) and len(numbers) == len(rows):
        return next(iter(found))
    return " and ".join(
        f"{fault} in replicate{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))} (of {len(rows)})"
        for fault, numbers in found.items()
    )
