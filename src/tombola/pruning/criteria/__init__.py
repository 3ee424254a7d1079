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
from tombola.pruning.criteria.gradients import movement_at
from tombola.pruning.criteria.network import Network, masked_weights, mean_gradient, network

__all__ = [
    "Criterion",
    "Loss",
    "Needs",
    "Network",
    "ScoreFunction",
    "Scores",
    "ScoringContext",
    "checked_batches",
    "criteria",
    "make_criterion",
    "masked_weights",
    "mean_gradient",
    "movement_at",
    "network",
    "register",
]
