"""SynFlow: Tanaka et al. 2020 (arXiv 2006.05467), pruning without any data."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import PruningError
from tombola.pruning.criteria.criterion import Needs, Scores, ScoringContext, register
from tombola.pruning.criteria.network import Weights, gradients, masked_weights, run
from tombola.pruning.modes import evaluation_mode

ROUNDS = 100
"""The paper's number of rounds; in one round SynFlow, like others, can cut a layer off."""


@register("synflow", Needs.EXAMPLE, rounds=ROUNDS)
def synflow(model: nn.Module, context: ScoringContext) -> Scores:
    """|w·∂R/∂w| with R the sum of all products of |w| along paths: data-free, iterative, in float64. Tanaka et al.
    2020 (arXiv 2006.05467).

    R is what the network gives for inputs of 1 when every weight is replaced by its magnitude, and biases and
    stored means by 0. Only the shape of the first batch is used. Raises PruningError for a network in which
    paths do not multiply (layer norm, attention, sigmoid, ...).
    """
    weights = {
        name: w.detach().double().abs().requires_grad_(w.requires_grad)
        for name, w in masked_weights(model, context).items()
    }
    example = _example_of_ones(context)
    with evaluation_mode(model):
        tensors = {**_linearised(model), **weights}
        flow = _flow(run(model, tensors, (example,)))
        _refuse_inhomogeneous(model, tensors, example, flow)
        found = gradients(flow, weights)
    return {name: (weights[name] * g).detach().abs() for name, g in found.items()}


def _example_of_ones(context: ScoringContext) -> Tensor:
    batch: Any = next(iter(context.batches or ()), None)
    inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
    if isinstance(inputs, Mapping) or not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise PruningError("synflow needs inputs of real numbers: it sends ones through the network in their place")
    return torch.ones_like(inputs[:1], dtype=torch.float64)


def _linearised(model: nn.Module) -> Weights:
    """All other parameters and buffers in float64: magnitudes of scales, no biases, no stored means."""
    tensors: Weights = {}
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):  # tied ones come once
        if tensor.is_floating_point():
            value = tensor.detach().double()
            offset = name.rpartition(".")[2] in ("bias", "running_mean", "in_proj_bias")
            tensors[name] = torch.zeros_like(value) if offset else value.abs()
    return tensors


def _flow(output: Any) -> Tensor:
    if not isinstance(output, Tensor):
        raise PruningError(f"synflow needs a model that gives one tensor, not {type(output).__name__}")
    flow = output.sum()
    if not bool(torch.isfinite(flow)):
        raise PruningError("synflow: the products along the paths overflow float64; the weights are too large")
    if not float(flow.detach()) > 0:
        raise PruningError(
            "synflow does not go with this network: no path carries anything from input to output (a layer or a "
            "batch-norm scale is all zeros, or a layer norm makes its inputs add up to 0)"
        )
    return flow


def _refuse_inhomogeneous(model: nn.Module, tensors: Weights, example: Tensor, flow: Tensor) -> None:
    """Where paths multiply, twice the input gives twice the flow."""
    with torch.no_grad():
        doubled = _flow(run(model, tensors, (2 * example,)))
    if not torch.isclose(doubled, 2 * flow.detach(), rtol=1e-9, atol=0):
        raise PruningError(
            "synflow does not go with this network: weights do not multiply along paths through it (layer norm, "
            "attention, or an activation that is not linear for positive numbers); use another criterion"
        )
