"""Criteria that ask what a weight's removal would do to the loss or to its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tombola.errors import PruningError
from tombola.pruning.criteria.batches import examples_of
from tombola.pruning.criteria.criterion import Criterion, Needs, Scores, ScoringContext, register
from tombola.pruning.criteria.network import Network, Weights, at_least_float32, mean_gradient, mean_of, network
from tombola.pruning.precision import where_float64_is

MOVEMENT_RATE = 1e-2
"""Learning rate of the plain SGD steps along which movement is gathered."""


@register("gradient", Needs.GRADIENTS, of_units=True)
def gradient(model: nn.Module, context: ScoringContext) -> Scores:
    """|Σ w·g| over a unit, g the gradient of the mean loss: the first-order change of the loss. Mozer & Smolensky
    1988."""
    with network(model, context) as net:
        mean = mean_gradient(net)
    return {name: context.sum_over_units(name, _product(net.weights[name], g)).abs() for name, g in mean.items()}


@register("taylor", Needs.GRADIENTS, of_units=True)
def taylor(model: nn.Module, context: ScoringContext) -> Scores:
    """(Σ w·g)² over a unit, the mean over batches: the squared change of the loss. Molchanov et al. 2019
    (arXiv 1906.10771)."""
    with network(model, context) as net:
        return mean_of(_squared_changes(g, net) for g in net.loss_gradients())


@register("fisher", Needs.GRADIENTS, of_units=True)
def fisher(model: nn.Module, context: ScoringContext) -> Scores:
    """½ (Σ w·g)² over a unit, the mean over single examples: the diagonal of the empirical Fisher information. Theis
    et al. 2018 (arXiv 1801.05787)."""
    examples = (example for batch in context.batches or () for example in examples_of(batch))
    with network(model, context) as net:
        mean = mean_of(_squared_changes(g, net) for g in net.loss_gradients(examples))
    return {name: score.div_(2) for name, score in mean.items()}


@register("snip", Needs.GRADIENTS)
def snip(model: nn.Module, context: ScoringContext) -> Scores:
    """|w·g| over its sum in the network: connection sensitivity, made for untrained networks, whose batch norms go by
    the batch. Lee et al. 2019 (arXiv 1810.02340)."""
    with network(model, context, batch_statistics=True) as net:
        mean = mean_gradient(net)
    sensitivity = {name: _product(net.weights[name], g).abs() for name, g in mean.items()}
    total = float(sum(where_float64_is(score).sum(dtype=torch.float64) for score in sensitivity.values()))
    return {name: score / total if total else score for name, score in sensitivity.items()}


@register("grasp", Needs.GRADIENTS)
def grasp(model: nn.Module, context: ScoringContext) -> Scores:
    """w·(H g): what keeping a weight does for the norm of the gradient, made for untrained networks, whose batch norms
    go by the batch. Wang et al. 2020 (arXiv 2002.07376), without a temperature.

    g is the gradient of all trainable parameters, biases and protected layers too, as the norm is of all.
    """
    # Attention's fused kernels have no second derivative; the plain ones do.
    with network(model, context, batch_statistics=True) as net, sdpa_kernel(SDPBackend.MATH):
        batches = context.batches or ()
        direction = mean_of(net.gradients(net.loss(batch), of=net.trainable) for batch in batches)
        if context.masks is not None:  # of the pruned network, whose removed weights have no gradient
            masks = context.masks
            direction = {name: masks[name].apply(g) if name in masks else g for name, g in direction.items()}
        net.refuse_unreached()
        mean = mean_of(_hessian_product(net, batch, direction) for batch in batches)
    return {name: _product(net.weights[name], hg) for name, hg in mean.items()}


def movement_at(rate: float) -> Criterion:
    """The criterion `movement` at another learning rate of its SGD steps, one for each batch."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < float("inf"):
        raise PruningError(f"the rate of movement's steps is a number above 0, not {rate!r}")
    return Criterion("movement", lambda model, context: _movement(model, context, rate), Needs.GRADIENTS)


@register("movement", Needs.GRADIENTS, at=movement_at)
def movement(model: nn.Module, context: ScoringContext) -> Scores:
    """-Σ w·g along plain SGD steps on a copy, one a batch at a rate of 0.01: weights that move away from 0 stay.
    The score of Sanh et al. 2020 (arXiv 2005.07683), who gather it while they train.

    Other steps: pass as many batches as there are to be steps, and name the rate, `criterion="movement:0.1"`.
    """
    return _movement(model, context, MOVEMENT_RATE)


def _movement(model: nn.Module, context: ScoringContext, rate: float) -> Scores:
    with network(model, context) as net:
        score = {name: torch.zeros_like(at_least_float32(weight.detach())) for name, weight in net.asking.items()}
        # Gradients are asked for anew at each step, at the weights that the step before left.
        for found in net.loss_gradients():
            with torch.no_grad():
                for name, g in found.items():
                    score[name].sub_(_product(net.weights[name], g))
                    kept = g if context.masks is None else context.masks[name].apply(g)
                    net.weights[name].sub_(kept, alpha=rate)
    if not net.reached:
        raise PruningError("`batches` is empty: a criterion needs at least one batch")
    return score


def _product(weight: Tensor, gradient: Tensor) -> Tensor:
    return at_least_float32(weight.detach()) * at_least_float32(gradient.detach())


def _squared_changes(found: Weights, net: Network) -> Scores:
    """In float64: squares of small numbers would all be 0 in float32, and units go by position."""
    changes = {name: _product(net.weights[name], g) for name, g in found.items()}
    sums = {name: where_float64_is(net.context.sum_over_units(name, c)) for name, c in changes.items()}
    return {name: total.double().square() for name, total in sums.items()}


def _hessian_product(net: Network, batch: Any, direction: Scores) -> Weights:
    """H·direction of a batch, as the gradient of (gradient · direction) with the direction held fixed."""
    found = net.gradients(net.loss(batch), of=net.trainable, differentiable=True)
    inner = torch.stack([(g * direction[name].to(g.dtype)).sum() for name, g in found.items()]).sum()
    # A loss that is linear in a weight has no second derivative there: zeros, not an error.
    return net.gradients(inner) if inner.requires_grad else {n: torch.zeros_like(w) for n, w in net.asking.items()}
