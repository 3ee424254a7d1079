"""Whether a smaller network computes what the masked one does: the same inputs through both, also with chance in it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_map

from tombola.compression.removal.trace import Example, call_of, tensors_in
from tombola.pruning.copies import copy_of
from tombola.pruning.surroundings import surroundings_kept

TOLERANCE = 1e-5
"""Of the largest output, in float32."""


def difference(reference: nn.Module, smaller: nn.Module, example: Example, seed: int = 0) -> float:
    """The largest difference of their outputs in evaluation, as a fraction of the largest output.

    Both are run themselves, and are the caller's to throw away.
    On the example and on numbers of chance in its place. Where float32 says more than `TOLERANCE`, float64 decides
    what of it is rounding.
    """
    error = _difference(reference, smaller, example, seed)
    if error <= TOLERANCE:
        return error
    return _difference(reference.double(), smaller.double(), tree_map(_double, example), seed)


def _difference(reference: nn.Module, smaller: nn.Module, example: Example, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)

    def chance(value: object) -> object:
        if isinstance(value, Tensor) and value.is_floating_point():
            return torch.randn(value.shape, generator=generator, dtype=value.dtype).to(value.device)
        return value

    return max(_on(reference, smaller, inputs) for inputs in (example, tree_map(chance, example)))


def _on(reference: nn.Module, smaller: nn.Module, example: Example) -> float:
    expected, found = outputs(reference, example), outputs(smaller, example)
    if [tensor.shape for tensor in expected] != [tensor.shape for tensor in found]:
        return float("inf")
    errors = [0.0]
    for one, other in zip(expected, found, strict=True):
        if one.is_floating_point() and one.numel():
            largest = float(one.abs().max()) or 1.0
            error = float((one - other).abs().max()) / largest
            errors.append(error if error == error else float("inf"))
    return max(errors)


def outputs(model: nn.Module, example: Example) -> list[Tensor]:
    """The tensors that a model gives in evaluation, in which it is left; it is run itself."""
    arguments, keywords = call_of(example)
    with surroundings_kept(), torch.no_grad():
        return tensors_in(model.eval()(*arguments, **keywords))


def with_statistics_of_chance(model: nn.Module, seed: int = 0) -> nn.Module | None:
    """A copy whose batch norms have statistics and weights of chance; None for a model that has none.

    A network that was never trained has mean 0 and variance 1 everywhere: cut in the wrong place they look right.
    """
    if not any(isinstance(module, _NormBase) for module in model.modules()):
        return None
    copied = copy_of(model)
    norms = [module for module in copied.modules() if isinstance(module, _NormBase)]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in norms:
            for tensor, low, high in (
                (norm.running_mean, -0.5, 0.5),
                (norm.running_var, 0.5, 1.5),
                (norm.weight, 0.5, 1.5),
                (norm.bias, -0.5, 0.5),
            ):
                if tensor is not None:
                    numbers = torch.rand(tensor.shape, generator=generator) * (high - low) + low
                    tensor.copy_(numbers)
    return copied


def _double(value: object) -> object:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
