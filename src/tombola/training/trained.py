"""What a training leaves, and what it tells of itself on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tombola.pruning import Masks


@dataclass(frozen=True)
class Evaluation:
    """A look at the validation set after `iteration` iterations; `values` are further measures of the task by name.

    `averaged` is the same of the averaged weights, where there are some.
    """

    iteration: int
    loss: float
    values: Mapping[str, float]
    averaged: Evaluation | None = None

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Evaluation:
        """The inverse of `asdict`."""
        averaged = facts["averaged"]
        return cls(**{**facts, "averaged": None if averaged is None else cls.from_facts(averaged)})

    @property
    def accuracy(self) -> float:
        """The fraction of right answers, of tasks that have some."""
        return self.values["accuracy"]


@dataclass(frozen=True)
class Averaged:
    """What averaging left: the state with averaged weights at the end, and at its own minimum validation loss.

    Where the recipe has a `patience`, the former is the latter, as it is for the raw weights.
    """

    state: dict[str, Tensor]
    early_stop: Evaluation
    early_stop_state: dict[str, Tensor]


@dataclass(frozen=True)
class Trained:
    """What a training leaves beside the model itself.

    `early_stop` is the evaluation of minimum validation loss (the first, if several), the early-stop
    iteration of Frankle & Carbin 2019; `early_stop_state` is the model's state there. `masks` are those in force
    at the end; `engine` is how the steps were computed, `dense` or `sparse`. Where masks evolve, an early stop is
    looked for among the evaluations after their last change only: before it the network is denser than asked for,
    or has another topology. So `masks` are those of `early_stop_state`, too. `iteration` is the one reached,
    `trained` how many were run (fewer, when training began at a later step). `averaged` is there where the recipe has
    an `ema`.
    """

    evaluations: list[Evaluation]
    early_stop: Evaluation
    early_stop_state: dict[str, Tensor]
    masks: Masks
    iteration: int
    trained: int
    seconds: float
    engine: str
    averaged: Averaged | None = None


OnEvaluation = Callable[[Evaluation, int], None]
"""Called after each evaluation with it and the total number of iterations.

The model has the raw weights that were evaluated, whatever the engine. Who is called may run the model, in any mode,
and use chance; to change its weights is an error (`looking`). An error raised here ends the training; a checkpoint is
written after the call, so that a continued training calls again rather than not at all.
"""
