"""Lengths of training and learning rates."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tombola.errors import ConfigError
from tombola.runs.configs import validate
from tombola.training import Recipe, Step


def recipe(**changes: object) -> Recipe:
    return validate({"length": "100it", "evaluate_every": "10it", **changes}, Recipe, "recipe")


@pytest.mark.parametrize(
    ("text", "per_epoch", "iterations"),
    [("50000it", 917, 50_000), ("2ep", 917, 1834), ("2ep50it", 917, 1884), ("0it", 5, 0)],
)
def test_a_step_is_so_many_iterations(text: str, per_epoch: int, iterations: int) -> None:
    assert Step.parse(text).iterations(per_epoch) == iterations


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_text_and_back(epochs: int, extra: int) -> None:
    step = Step(epochs, extra)
    assert Step.parse(str(step)) == step


@pytest.mark.parametrize(
    "text", ["", " ", "50", "it", "ep", "-1it", "1.5ep", "50it2ep", "1e3it", "2 ep", 50, None, "９it x"]
)
def test_anything_else_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match="50000it, 3ep or 2ep50it"):
        Step.parse(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": "0it"}, "length must be at least 1it"),
        ({"evaluate_every": "0ep"}, "evaluate_every must be at least 1it"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"batch_size": 0}, "batch_size"),
        ({"momentum": 0.9}, "momentum belongs to sgd"),
        ({"optimizer": "lion"}, "optimizer"),
        ({"schedule": "step"}, "milestones"),
        ({"milestones": ["5it"]}, "milestones"),
        ({"lenght": "5it"}, "did you mean 'length'"),
    ],
)
def test_recipes_that_make_no_sense(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**changes)


def test_constant_rate_with_warmup() -> None:
    rates = [recipe(learning_rate=1.0, warmup="4it").rate_at(i, 10) for i in range(6)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_step_schedule_counts_epochs() -> None:
    stepped = recipe(learning_rate=1.0, schedule="step", milestones=["1ep", "2ep5it"], gamma=0.1)
    assert [stepped.rate_at(i, 10) for i in (9, 10, 24, 25)] == pytest.approx([1.0, 0.1, 0.1, 0.01])


def test_cosine_falls_from_the_rate_to_zero_after_warmup() -> None:
    cosine = recipe(learning_rate=2.0, schedule="cosine", warmup="20it")
    assert cosine.rate_at(20, 10) == 2.0
    assert cosine.rate_at(60, 10) == pytest.approx(1.0)
    assert cosine.rate_at(99, 10) == pytest.approx(1 + math.cos(math.pi * 79 / 80))
    assert all(cosine.rate_at(i, 10) >= cosine.rate_at(i + 1, 10) for i in range(20, 99))
