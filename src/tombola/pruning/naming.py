"""Which parameter a mask is of, whatever compiling, wrapping and sharing did to its name."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from tombola.errors import PruningError
from tombola.pruning.mask import Mask
from tombola.pruning.prunable import listed, prunable_parameters
from tombola.pruning.wrapped import matched


def parameters_of(masks: Mapping[str, Mask], model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of `model` by the names that they have in `masks`, in the model's order.

    A shared parameter may go by any of its names. PruningError when `model` has other weights or shapes.
    """
    parameters = prunable_parameters(model)
    weights = {id(parameter) for parameter in parameters.values()}
    every = {n: p for n, p in model.named_parameters(remove_duplicate=False) if id(p) in weights}
    names: dict[int, list[str]] = {id(parameter): [] for parameter in parameters.values()}
    pairs = matched(masks, every)
    for own, name in pairs.items():
        names[id(every[name])].append(own)
    missing = [name for name, parameter in parameters.items() if not names[id(parameter)]]
    if odd := sorted({*missing, *(own for own in masks if own not in pairs)}):
        raise PruningError(f"the masks do not belong to this model: they differ in {listed(odd)}")
    for own, name in pairs.items():
        shape = tuple(every[name].shape)
        if masks[own].shape != shape:
            raise PruningError(f"{own}: a mask of shape {tuple(masks[own].shape)} does not fit {shape}")
    for first, *others in names.values():
        if different := [other for other in others if masks[other] != masks[first]]:
            raise PruningError(f"{first} and {different[0]} are one weight of the model, their masks differ")
    return {names[id(parameter)][0]: parameter for parameter in parameters.values()}
