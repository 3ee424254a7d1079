"""Criteria that ask what a weight's removal would do to the loss or to its gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tombola.errors import PruningError
from tombola.pruning.criteria.criterion import Needs, Scores, ScoringContext, register
from tombola.pruning.criteria.network import (
    Weights,
    at_least_float32,
    buffer_copies,
    gradients,
    inputs_and_targets,
    loss_gradients,
    masked_weights,
    mean_gradient,
    mean_loss,
    mean_of,
)
from tombola.pruning.modes import evaluation_mode

MOVEMENT_RATE = 1e-2
"""Learning rate of the plain SGD steps along which movement is gathered."""


@register("gradient", Needs.GRADIENTS, of_units=True)
def gradient(model: nn.Module, context: ScoringContext) -> Scores:
    """|Σ w·g| over a unit, g the gradient of the mean loss: the first-order change of the loss. Mozer & Smolensky
    1988."""
    weights = masked_weights(model, context)
    with evaluation_mode(model):
        mean = mean_gradient(model, weights, context)
    return {name: context.sum_over_units(name, _product(weights[name], g)).abs() for name, g in mean.items()}


@register("taylor", Needs.GRADIENTS, of_units=True)
def taylor(model: nn.Module, context: ScoringContext) -> Scores:
    """(Σ w·g)² over a unit, the mean over batches: the squared change of the loss. Molchanov et al. 2019
    (arXiv 1906.10771)."""
    weights = masked_weights(model, context)
    with evaluation_mode(model):
        return mean_of(_squared_changes(g, weights, context) for g in loss_gradients(model, weights, context))


@register("fisher", Needs.GRADIENTS, of_units=True)
def fisher(model: nn.Module, context: ScoringContext) -> Scores:
    """½ (Σ w·g)² over a unit, the mean over single examples: the diagonal of the empirical Fisher information. Theis
    et al. 2018 (arXiv 1801.05787)."""
    weights = masked_weights(model, context)
    with evaluation_mode(model):
        examples = (example for batch in context.batches or () for example in _examples(batch))
        changes = (
            _squared_changes(gradients(mean_loss(model, weights, example, context), weights), weights, context)
            for example in examples
        )
        return {name: score.div_(2) for name, score in mean_of(changes).items()}


@register("snip", Needs.GRADIENTS)
def snip(model: nn.Module, context: ScoringContext) -> Scores:
    """|w·g| over its sum in the network: connection sensitivity, made for untrained networks, whose batch norms go by
    the batch. Lee et al. 2019 (arXiv 1810.02340)."""
    weights = {**buffer_copies(model), **masked_weights(model, context)}
    with evaluation_mode(model, batch_statistics=True):
        mean = mean_gradient(model, weights, context)
    sensitivity = {name: _product(weights[name], g).abs() for name, g in mean.items()}
    total = float(sum(score.sum(dtype=torch.float64) for score in sensitivity.values()))
    return {name: score / total if total else score for name, score in sensitivity.items()}


@register("grasp", Needs.GRADIENTS)
def grasp(model: nn.Module, context: ScoringContext) -> Scores:
    """w·(H g): what keeping a weight does for the norm of the gradient, made for untrained networks, whose batch norms
    go by the batch. Wang et al. 2020 (arXiv 2002.07376), without a temperature."""
    weights = {**buffer_copies(model), **masked_weights(model, context)}
    # Attention's fused kernels have no second derivative; the plain ones do.
    with evaluation_mode(model, batch_statistics=True), sdpa_kernel(SDPBackend.MATH):
        direction = mean_gradient(model, weights, context)
        products = (_hessian_product(model, weights, batch, direction, context) for batch in context.batches or ())
        mean = mean_of(products)
    return {name: _product(weights[name], hg) for name, hg in mean.items()}


@register("movement", Needs.GRADIENTS)
def movement(model: nn.Module, context: ScoringContext) -> Scores:
    """-Σ w·g along plain SGD steps, one a batch: weights that grow away from 0 stay. Sanh et al. 2020
    (arXiv 2005.07683)."""
    weights = masked_weights(model, context)
    asking = {name: w for name, w in weights.items() if w.requires_grad}
    score = {name: torch.zeros_like(at_least_float32(w.detach())) for name, w in asking.items()}
    seen = False
    with evaluation_mode(model):
        # Gradients are asked for anew at each step, at the weights that the step before left.
        for found in loss_gradients(model, weights, context):
            seen = True
            with torch.no_grad():
                for name, g in found.items():
                    score[name].sub_(_product(weights[name], g))
                    kept = g if context.masks is None else context.masks[name].apply(g)
                    weights[name].sub_(kept, alpha=MOVEMENT_RATE)
    if not seen:
        raise PruningError("`batches` is empty: a criterion needs at least one batch")
    return score


def _product(weight: Tensor, gradient: Tensor) -> Tensor:
    return at_least_float32(weight.detach()) * at_least_float32(gradient.detach())


def _squared_changes(found: Weights, weights: Weights, context: ScoringContext) -> Scores:
    """In float64: squares of small numbers would all be 0 in float32, and units go by position."""
    return {n: context.sum_over_units(n, _product(weights[n], g)).double().square() for n, g in found.items()}


def _hessian_product(
    model: nn.Module, weights: Weights, batch: Any, direction: Scores, context: ScoringContext
) -> Weights:
    """H·direction of a batch, as the gradient of (gradient · direction) with the direction held fixed."""
    found = gradients(mean_loss(model, weights, batch, context), weights, differentiable=True)
    inner = torch.stack([(g * direction[name].to(g.dtype)).sum() for name, g in found.items()]).sum()
    # A loss that is linear in a weight has no second derivative there: zeros, not an error.
    again = torch.autograd.grad(inner, [weights[name] for name in found], materialize_grads=True)
    return dict(zip(found, again, strict=True))


def _examples(batch: Any) -> Iterator[Any]:
    """The examples of a batch as batches of one."""
    if not isinstance(batch, Mapping):
        inputs_and_targets(batch)  # refuses what is no pair
    for index in range(_count(batch)):
        yield _example(batch, index)


def _count(part: Any) -> int:
    """How many examples the first tensor within has."""
    if isinstance(part, Tensor):
        return len(part) if part.dim() else 0
    parts = part.values() if isinstance(part, Mapping) else part if isinstance(part, (tuple, list)) else ()
    return next((count for count in map(_count, parts) if count), 0)


def _example(part: Any, index: int) -> Any:
    """The same structure with one example of every tensor; what has no examples stays as it is."""
    if isinstance(part, Tensor):
        return part[index : index + 1] if part.dim() else part
    if isinstance(part, Mapping):
        return {key: _example(value, index) for key, value in part.items()}
    return tuple(_example(value, index) for value in part) if isinstance(part, (tuple, list)) else part
