"""Criteria: what a weight is worth. A higher score means worth keeping.

`criterion.py` is the contract and the registry; the criteria lie beside it by what they look at.
"""

from tombola.pruning.criteria import activations, gradients, synflow, weights  # noqa: F401 (they register themselves)
from tombola.pruning.criteria.criterion import (
    Criterion,
    Loss,
    Needs,
    ScoreFunction,
    Scores,
    ScoringContext,
    checked_batches,
    criteria,
    make_criterion,
    register,
)
from tombola.pruning.criteria.network import loss_gradients, masked_weights, mean_gradient
from tombola.pruning.modes import evaluation_mode

__all__ = [
    "Criterion",
    "Loss",
    "Needs",
    "ScoreFunction",
    "Scores",
    "ScoringContext",
    "checked_batches",
    "criteria",
    "evaluation_mode",
    "loss_gradients",
    "make_criterion",
    "masked_weights",
    "mean_gradient",
    "register",
]
