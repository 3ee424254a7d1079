"""Criteria that look at the weights alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tombola.pruning.criteria.criterion import Scores, ScoringContext, register
from tombola.pruning.criteria.network import at_least_float32, masked_weights
from tombola.pruning.precision import where_float64_is
from tombola.pruning.prunable import Layout, weight_layouts


@register("magnitude")
def magnitude(model: nn.Module, context: ScoringContext) -> Scores:
    """|w|; a unit's is the mean over its weights. Han et al. 2015 (arXiv 1506.02626)."""
    return {name: p.detach().abs() for name, p in context.scored(model).items()}


@register("random", of_units=True)
def random(model: nn.Module, context: ScoringContext) -> Scores:
    """Independent uniform scores from a seed: what every criterion must beat.

    A mean over a unit would be near ½ in large units and anywhere in small ones; the fraction of a sum of uniform
    numbers is uniform again, so that units of every size have the same chance.
    """
    generator = torch.Generator().manual_seed(context.seed)
    numbers = {name: torch.rand(p.shape, generator=generator) for name, p in context.scored(model).items()}
    return {
        name: context.sum_over_units(name, where_float64_is(numbers[name].to(p.device)).double()).frac()
        for name, p in context.scored(model).items()
    }


@register("l1-norm", of_units=True)
def l1_norm(model: nn.Module, context: ScoringContext) -> Scores:
    """The sum of |w| over a unit. Li et al. 2017 (arXiv 1608.08710)."""
    return {name: context.sum_over_units(name, w.abs()) for name, w in _weights(model, context).items()}


@register("l2-norm", of_units=True)
def l2_norm(model: nn.Module, context: ScoringContext) -> Scores:
    """The root of the sum of w² over a unit. He et al. 2018, soft filter pruning (arXiv 1808.06866)."""
    return {name: context.sum_over_units(name, w.square()).sqrt() for name, w in _weights(model, context).items()}


@register("lamp")
def lamp(model: nn.Module, context: ScoringContext) -> Scores:
    """w² over the sum of all w² of its layer that are not smaller, which makes layers comparable. Lee et al. 2021
    (arXiv 2010.07611)."""
    return {name: _lamp(w) for name, w in _weights(model, context).items()}


@register("fpgm", outputs_only=True, of_units=True)
def geometric_median(model: nn.Module, context: ScoringContext) -> Scores:
    """An output's summed distance to the layer's other outputs: near their geometric median, others can stand in for
    it. He et al. 2019 (arXiv 1811.00250).

    Removed outputs stand in for nothing: only distances to outputs that are left count. Those of another group of a
    grouped convolution read other inputs, and do not count either.
    """
    scores = {}
    layouts = weight_layouts(model)
    for name, weight in _weights(model, context).items():
        outputs = _outputs(layouts[name], weight)
        distances = torch.cdist(outputs, outputs, compute_mode="donot_use_mm_for_euclid_dist")
        if context.masks is not None:
            left = _outputs(layouts[name], context.masks[name].keep.to(weight.device)).any(2)
            distances = distances * left.unsqueeze(1)
        by_output = distances.sum(2).view(layouts[name].groups, layouts[name].outputs, 1, 1)
        scores[name] = layouts[name].original(by_output.expand_as(layouts[name].canonical(weight)))
    return scores


def _weights(model: nn.Module, context: ScoringContext) -> Scores:
    """The weights to score, removed ones 0."""
    masked = masked_weights(model, context)
    return {name: at_least_float32(masked[name].detach()) for name in context.scored(model)}


def _outputs(layout: Layout, tensor: Tensor) -> Tensor:
    """`tensor` of the weight's shape as (groups, outputs, weights of an output)."""
    return layout.canonical(tensor).flatten(2)


def _lamp(weight: Tensor) -> Tensor:
    """Equal weights come in the order of their positions, the first of them smallest, as in the paper."""
    squares = weight.flatten().cpu().double().square()  # sums along a tensor have no fixed order elsewhere
    ascending, order = squares.sort(stable=True)
    not_smaller = ascending.flip(0).cumsum(0).flip(0)
    score = torch.zeros_like(squares)
    score[order] = torch.where(not_smaller > 0, ascending / not_smaller, 0)
    return score.view(weight.shape)
