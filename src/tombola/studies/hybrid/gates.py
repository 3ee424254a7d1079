"""Gated early exits: an example leaves at the exit when the forest is sure of its class, else it goes on to the end.

Pure numbers: no network runs here. A threshold is chosen on validation examples and evaluated once on test examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tombola.errors import DataError
from tombola.training.metrics import macro_f1

ALWAYS, NEVER = 0.0, 1.0
"""Thresholds at which all leave, and none. Who leaves is surer than the threshold, and nobody is surer than 1."""
POINTS = 21
"""Of a curve, at most; always and never are among them."""
ROUNDING = 1e-9
"""Of fractions: 0.9 is no less than 0.91 - 0.01."""


@dataclass(frozen=True)
class Gated:
    """What is known of examples that come to a gate, and what it costs.

    `probabilities` (n, classes) and `early` (n,) are the forest's, its classes as it predicts them; `late` (n,) are
    the classes that the whole network predicts, `targets` (n,) the true ones. FLOPs are of one example: `exit_flops`
    up to and with the forest's features, `rest_flops` of going on. Every example asks the forest, which takes
    `comparisons` of it, no FLOPs.
    """

    probabilities: NDArray[np.floating]
    early: NDArray[np.integer]
    late: NDArray[np.integer]
    targets: NDArray[np.integer]
    exit_flops: float
    rest_flops: float
    comparisons: float

    def __post_init__(self) -> None:
        counts = {len(self.probabilities), len(self.early), len(self.late), len(self.targets)}
        if len(counts) > 1 or counts == {0} or self.probabilities.ndim != 2:
            raise DataError(f"a gate needs probabilities (n, classes) and three classes for each of n, not {counts}")
        if not ((self.probabilities >= 0) & (self.probabilities <= 1 + ROUNDING)).all():
            raise DataError("a gate needs probabilities between 0 and 1")

    @property
    def confidence(self) -> NDArray[np.floating]:
        """How sure the forest is of each example (n,): the fraction of its most probable class."""
        return np.minimum(self.probabilities.max(1), NEVER)


@dataclass(frozen=True)
class GatePoint:
    """What a threshold comes to: the fraction that `left` early, accuracy and macro-F1 of all, mean cost of one."""

    threshold: float
    left: float
    accuracy: float
    f1: float
    flops: float
    comparisons: float


def at_threshold(gated: Gated, threshold: float) -> GatePoint:
    """Lets those leave whose confidence is above the threshold, from 0 (all) to 1 (none)."""
    leaves = gated.confidence > threshold
    predicted = np.where(leaves, gated.early, gated.late)
    count, left = len(leaves), int(leaves.sum())
    f1 = macro_f1(torch.from_numpy(predicted.astype(np.int64)), torch.from_numpy(gated.targets.astype(np.int64)))
    flops = gated.exit_flops + (count - left) / count * gated.rest_flops
    accuracy = int((predicted == gated.targets).sum()) / count
    return GatePoint(float(threshold), left / count, accuracy, f1, flops, gated.comparisons)


def gate_curve(gated: Gated, points: int = POINTS) -> list[GatePoint]:
    """From always leaving to never, by thresholds between which about as many examples lie."""
    return [at_threshold(gated, threshold) for threshold in thresholds_of(gated.confidence, points)]


def thresholds_of(confidence: NDArray[np.floating], points: int = POINTS) -> list[float]:
    """At most so many rising thresholds, 0 and 1 among them, no two of which let the same examples leave."""
    levels = np.linspace(0, 1, points)[1:-1]
    inner = np.unique(np.quantile(confidence, levels, method="inverted_cdf"))
    return [ALWAYS, *(float(value) for value in inner if value < confidence.max()), NEVER]


def choose_threshold(curve: Sequence[GatePoint], tolerance: float) -> GatePoint:
    """The cheapest point that loses at most `tolerance` points of accuracy to the whole network.

    `curve` is of validation examples, its last point the whole network. Of equally cheap points the most accurate.
    """
    least = curve[-1].accuracy - tolerance / 100 - ROUNDING
    good_enough = [point for point in curve if point.accuracy >= least]
    return min(good_enough, key=lambda point: (point.flops, -point.accuracy))
