"""The rows of a gated early exit: accuracy against mean cost, its threshold chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray

from tombola.data import Examples
from tombola.pruning.modes import evaluation_mode
from tombola.runs.rows import Row
from tombola.studies.hybrid.cuts import Cut
from tombola.studies.hybrid.forests import Forest, comparisons
from tombola.studies.hybrid.gates import Gated, at_threshold, choose_threshold, gate_curve

PARTS = ("validation", "test")
BATCH = 256


def gate_rows(
    cut: Cut, tolerance: float, whole: Row, exit: Row, forest: Forest, features: Mapping[str, NDArray[np.float32]]
) -> list[Row]:
    """A row for every threshold of the validation part, there and on test.

    `whole` and `exit` are the rows of the network and of the exit's forest; `tolerance` is in points of validation
    accuracy.
    """
    gates = {part: _gated(cut, getattr(cut.data, part), whole, exit, forest, features[part]) for part in PARTS}
    validation = gate_curve(gates["validation"])
    chosen = choose_threshold(validation, tolerance).threshold
    curves = {"validation": validation, "test": [at_threshold(gates["test"], p.threshold) for p in validation]}
    key = {"kind": "gate", "exit": exit["exit"], "features": exit["features"]}
    return [
        {**key, "part": part, **asdict(point), "chosen": point.threshold == chosen}
        for part, curve in curves.items()
        for point in curve
    ]


def _gated(cut: Cut, examples: Examples, whole: Row, exit: Row, forest: Forest, features: NDArray[np.float32]) -> Gated:
    return Gated(
        forest.probabilities(features),
        forest.predict(features),
        _predicted(cut, examples),
        examples.targets.numpy(),
        exit["flops_effective"],
        whole["flops_effective"] - exit["flops_effective"],
        comparisons(forest, features),
    )


def _predicted(cut: Cut, examples: Examples) -> NDArray[np.int64]:
    with evaluation_mode(cut.network), torch.no_grad():
        batches = examples.inputs.split(BATCH)
        predicted: NDArray[np.int64] = torch.cat([cut.network(batch).argmax(1) for batch in batches]).numpy()
    return predicted
