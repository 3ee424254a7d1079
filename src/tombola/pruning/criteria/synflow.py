"""SynFlow: Tanaka et al. 2020 (arXiv 2006.05467), pruning without any data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tombola.errors import PruningError
from tombola.pruning.copies import copy_of
from tombola.pruning.criteria.batches import inputs_of
from tombola.pruning.criteria.criterion import Needs, Scores, ScoringContext, register
from tombola.pruning.criteria.network import Network, network
from tombola.pruning.outputs import main_output
from tombola.pruning.precision import has_float64

ROUNDS = 100
"""The paper's number of rounds; in one round SynFlow, like others, can cut a layer off."""


@register("synflow", Needs.EXAMPLE, rounds=ROUNDS)
def synflow(model: nn.Module, context: ScoringContext) -> Scores:
    """|w·∂R/∂w| with R the sum of all products of |w| along paths: data-free, iterative, in float64. Tanaka et al.
    2020 (arXiv 2006.05467).

    R is what the network gives for inputs of 1 when every weight is replaced by its magnitude, and biases and
    stored means by 0; a softmax or log-softmax at its end is passed over, since paths end at the logits. Only the
    shape of the first batch is used. Raises PruningError for a network in which paths do not multiply (layer norm,
    attention, sigmoid, ...).
    """
    example = _example_of_ones(context)
    if any(not has_float64(parameter.device) for parameter in model.parameters()):
        model = copy_of(model).cpu()
    with network(model, context) as net:
        _linearise(net.model)
        flow = _flow(_logits(net, example))
        found = net.gradients(flow)
        net.refuse_unreached()
        _refuse_inhomogeneous(net, example, flow)
    return {name: (net.weights[name] * g).detach().abs() for name, g in found.items()}


class _Softmaxes(TorchFunctionMode):
    """Notes what every softmax and log-softmax was given, and what it gave."""

    OF_TORCH = frozenset(
        [
            *(functional.softmax, functional.log_softmax, torch.softmax, torch.log_softmax),
            *(Tensor.softmax, Tensor.log_softmax, torch.special.softmax, torch.special.log_softmax),
        ]
    )

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in self.OF_TORCH:
            self.seen.append((args[0] if args else (kwargs or {})["input"], output))
        return output


def _logits(net: Network, inputs: Tensor) -> Any:
    """What the network gives; where a softmax gives it, what that was given."""
    softmaxes = _Softmaxes()
    with softmaxes:
        output = main_output(net.run((inputs,)))
    return next((given for given, gave in softmaxes.seen if gave is output), output)


def _example_of_ones(context: ScoringContext) -> Tensor:
    inputs: Any = inputs_of(next(iter(context.batches or ()), None))
    if isinstance(inputs, Mapping) or not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise PruningError("synflow needs inputs of real numbers: it sends ones through the network in their place")
    return torch.ones(inputs[:1].shape, dtype=torch.float64)


def _linearise(model: nn.Module) -> None:
    """All parameters and buffers in float64 and as magnitudes: no biases, no stored means."""
    model.double()
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):  # tied ones come once
            if tensor.is_floating_point():
                offset = name.rpartition(".")[2] in ("bias", "running_mean", "in_proj_bias")
                tensor.zero_() if offset else tensor.abs_()


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


def _refuse_inhomogeneous(net: Network, example: Tensor, flow: Tensor) -> None:
    """Where paths multiply, twice the input gives twice the flow."""
    with torch.no_grad():
        doubled = _flow(_logits(net, 2 * example))
    if not torch.isclose(doubled, 2 * flow.detach(), rtol=1e-9, atol=0):
        raise PruningError(
            "synflow does not go with this network: weights do not multiply along paths through it (layer norm, "
            "attention, or an activation that is not linear for positive numbers); use another criterion"
        )
