"""Which parameters are weights: those of Linear and convolution layers, and nothing else.

Biases and normalisation parameters are never pruned and never counted. A tied weight counts once, under the
first name that `named_parameters` gives it.
"""

from __future__ import annotations

from torch import nn

from tombola.errors import PruningError

PRUNABLE_MODULES = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def prunable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Prunable parameters by name, in `named_parameters` order.

    Raises PruningError when there is none, or when one of them has no values yet (a lazy or meta module).
    """
    weights = {id(m.weight) for m in model.modules() if isinstance(m, PRUNABLE_MODULES)}
    found = {name: p for name, p in model.named_parameters() if id(p) in weights}
    if not found:
        raise PruningError("the model has no Linear or convolution weight to prune")
    for name, parameter in found.items():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise PruningError(f"{name} has no shape yet: run the model once on an example, then prune")
        if parameter.is_meta:
            raise PruningError(f"{name} is on the meta device and has no values: give the model storage first")
    return found
