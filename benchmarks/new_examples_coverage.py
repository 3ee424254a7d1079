"""How often bounds for new examples hold where every replicate draws its own test examples.

    python benchmarks/new_examples_coverage.py [--studies 2000] [--replicates 10] [--seed 0]

Each study draws a data set from a known population and splits it anew for every replicate, as the digits study does.
Two linear discriminants (all features against half of them) are trained and tested on each split. The truth is their
mean difference over many data sets, on a test set large enough to have no error of its own. Counted is how often the
truth lies above the lower one-sided 95 % bound, and below the upper one: for the bounds over replicates alone, and for
those with the correction of Nadeau & Bengio 2003.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from numpy.typing import NDArray

from tombola.reports.intervals import Bounds
from tombola.runs.rows import Row
from tombola.studies.base.new_examples import answer_columns, for_new_examples
from tombola.studies.base.paired import paired_accuracy

EXAMPLES, TEST = 300, 60
CENTRE = np.array([0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05])
"""Half the distance of two classes along features of unit variance."""
FEATURES = {"all": slice(None), "half": slice(0, 4)}
Array = NDArray[np.float64]


def draw(count: int, chance: np.random.Generator) -> tuple[Array, NDArray[np.int64]]:
    labels = chance.integers(0, 2, count)
    return chance.standard_normal((count, CENTRE.size)) + (2 * labels - 1)[:, None] * CENTRE, labels


def answers(train: tuple[Array, NDArray[np.int64]], test: Array, features: slice) -> NDArray[np.int64]:
    """What a linear discriminant that was trained on `train` says of `test`."""
    inputs, labels = train[0][:, features], train[1]
    means = np.stack([inputs[labels == label].mean(0) for label in (0, 1)])
    centred = inputs - means[labels]
    weights = np.linalg.solve(centred.T @ centred / len(inputs) + 1e-3 * np.eye(inputs.shape[1]), means[1] - means[0])
    return ((test[:, features] - means.mean(0)) @ weights > 0).astype(np.int64)


def one_study(replicates: int, chance: np.random.Generator) -> dict[str, list[Row]]:
    inputs, labels = draw(EXAMPLES, chance)
    rows: dict[str, list[Row]] = {name: [] for name in FEATURES}
    for replicate in range(replicates):
        order = chance.permutation(EXAMPLES)
        test, train = order[:TEST], order[TEST:]
        for name, features in FEATURES.items():
            correct = answers((inputs[train], labels[train]), inputs[test], features) == labels[test]
            columns = answer_columns(correct, labels[test] * 0 + test)
            counts = {"test_examples": TEST, "train_examples": len(train), "test_accuracy": float(correct.mean())}
            rows[name].append({"replicate": replicate, "round": 0, "branch": name, **counts, **columns})
    return rows


def truth(chance: np.random.Generator, trainings: int = 2000) -> float:
    """The mean difference in points over data sets; its standard error is below 0.03 points."""
    inputs, labels = draw(20_000, chance)
    found = []
    for _ in range(trainings):
        train = draw(EXAMPLES - TEST, chance)
        accuracies = [float((answers(train, inputs, part) == labels).mean()) for part in FEATURES.values()]
        found.append(100 * (accuracies[0] - accuracies[1]))
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--replicates", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance = np.random.default_rng(asked.seed)
    true = truth(chance)
    held = {name: np.zeros(2, np.int64) for name in ("replicates alone", "new examples")}
    for _ in range(asked.studies):
        rows = one_study(asked.replicates, chance)
        found: dict[str, Bounds | None] = {
            "replicates alone": paired_accuracy(rows["all"], rows["half"]).bounds(0.95),
            "new examples": for_new_examples(rows["all"], rows["half"], 0.95).bounds,
        }
        for name, bounds in found.items():
            assert bounds is not None
            assert bounds.lower is not None
            assert bounds.upper is not None
            held[name] += (bounds.lower <= true, true <= bounds.upper)
    print(f"true difference {true:.2f} points; {asked.studies} studies of {asked.replicates} replicates")
    for name, counts in held.items():
        fractions = counts / asked.studies
        errors = [math.sqrt(fraction * (1 - fraction) / asked.studies) for fraction in fractions]
        low, high = (f"{100 * s:.1f} ± {100 * e:.1f} %" for s, e in zip(fractions, errors, strict=True))
        print(f"{name}: lower bound holds in {low}, upper in {high} (wanted 95 %)")


if __name__ == "__main__":
    main()
