"""Bounds for new examples: they cover the truth when test sets are drawn anew, and say why where they cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from tombola.errors import StorageError
from tombola.studies.base.measures import ACCURACY
from tombola.studies.base.new_examples import answer_columns, correct_of, for_new_examples
from tombola.studies.base.paired import paired_accuracy
from tombola.studies.lottery.verdict import judge
from tombola.studies.lottery.verdict_notes import new_examples_line
from tombola.training.classification import Classification

OWN, COMMON, SHIFT = 0.03, 0.6, 0.3


def answered(rng: np.random.Generator, replicates: int, examples: int) -> tuple[list[dict], list[dict]]:
    """Rows of two networks tested on the same drawn examples: each example has a difficulty and a liking for ours."""
    difficulty, liking = rng.normal(1.5, 1, examples), rng.normal(0, COMMON, examples)
    rows: tuple[list[dict], list[dict]] = ([], [])
    for replicate in range(replicates):
        for side, sign in enumerate((1, -1)):
            noise = rng.normal(0, OWN) + rng.normal(0, 0.5, examples)
            correct = difficulty + sign * (liking + SHIFT) / 2 + noise > 0
            rows[side].append(row_of(replicate, ("ticket", "dense")[side], correct))
    return rows


def row_of(replicate: int, branch: str, correct: np.ndarray, labels: int = 0, **more: Any) -> dict:
    columns = answer_columns(correct, np.full(len(correct), labels, np.int64))
    named = {"kind": "training", "replicate": replicate, "round": int(branch != "dense"), "branch": branch}
    scores = {f"{part}_accuracy": float(correct.mean()) for part in ("validation", "test")}
    counts = {f"{part}_examples": len(correct) for part in ("validation", "test")}
    return {**named, "rewind": None, "density": 0.5, **scores, **counts, "train_examples": 1000, **columns, **more}


def true_difference() -> float:
    spread = (1 + COMMON**2 / 4 + OWN**2 + 0.25) ** 0.5
    return 100 * float(norm.cdf((1.5 + SHIFT / 2) / spread) - norm.cdf((1.5 - SHIFT / 2) / spread))


def test_the_bounds_cover_what_would_be_seen_on_new_examples() -> None:
    """Those over replicates alone do not: with 5 replicates and 500 shared examples they miss it twice as often."""
    rng, truth, count = np.random.default_rng(1), true_difference(), 300
    here, new = 0, 0
    for _ in range(count):
        ours, theirs = answered(rng, 5, 500)
        narrow, bounds = paired_accuracy(ours, theirs).bounds(), for_new_examples(ours, theirs).bounds
        assert bounds is not None
        here += narrow.lower <= truth <= narrow.upper
        new += bounds.lower <= truth <= bounds.upper
    assert new >= 0.87 * count  # two bounds of 95 % each: 90 %, less two standard errors
    assert here < 0.83 * count


def test_test_sets_of_their_own_are_corrected_after_nadeau_and_bengio() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = (
        [row_of(r, b, rng.random(250) < p, labels=r) for r in range(4)] for b, p in (("a", 0.9), ("b", 0.8))
    )
    here, bounds = paired_accuracy(ours, theirs).bounds(), for_new_examples(ours, theirs).bounds
    assert bounds is not None
    ratio = (bounds.mean - bounds.lower) / (here.mean - here.lower)
    assert ratio == pytest.approx(((1 / 4 + 250 / 1000) / (1 / 4)) ** 0.5)


def test_answers_survive_the_way_into_a_row_and_damage_is_noticed() -> None:
    correct = np.random.default_rng(0).random(1003) < 0.97
    row = row_of(0, "ticket", correct)
    assert (correct_of(row) == correct).all()
    for damage in ("AAAA", "?", row["test_correct"][:-8]):
        with pytest.raises(StorageError, match="test_correct of replicate 0, round 1, ticket is damaged"):
            correct_of(row | {"test_correct": damage})


def test_tables_without_answers_are_read_and_say_what_is_missing() -> None:
    ours, theirs = answered(np.random.default_rng(0), 5, 200)
    old = [{k: v for k, v in row.items() if k != "test_correct"} for row in (*ours, *theirs)]
    verdict = judge(old, 20.0)
    assert verdict.outcome == "matching"
    assert verdict.new_examples["dense"].bounds is None
    assert "not known: the rows do not say which test examples were answered correctly" in new_examples_line(verdict)


def test_the_verdict_gives_both_and_says_which_is_which() -> None:
    ours, theirs = answered(np.random.default_rng(0), 5, 500)
    verdict = judge([*ours, *theirs], 20.0)
    assert "of dense on this test set (" in verdict.sentence
    assert " For new examples: at least " in verdict.sentence
    bounds = verdict.new_examples["dense"].bounds
    assert bounds is not None
    assert bounds.lower < verdict.versus["dense"].lower
    assert bounds.confidence == verdict.dense_confidence


def test_there_is_one_measure_of_right_answers() -> None:
    """Tables, charts and verdicts know accuracy by its being equal to this one."""
    assert Classification.compares is ACCURACY
