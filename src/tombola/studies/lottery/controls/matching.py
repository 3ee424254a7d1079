"""Which neuron of one network is which of another: hidden units matched by their weights.

The units of a hidden layer can be reordered without changing what the network computes, so that two trainings from
different initial weights may find the same solution in another order. Ainsworth et al. 2023 (Git Re-Basin, arXiv
2209.04836, algorithm 1) look for the orders in which the weights of both networks have the largest inner product,
layer by layer, until none can be improved; each step is a linear assignment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tombola.errors import ConfigError
from tombola.pruning import Mask, Masks

Order = NDArray[np.intp]
"""Of a layer's units: entry i is the unit of the other network that is unit i of the first."""

_UNITWISE = (
    *(nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity, nn.Flatten),
    *(nn.Dropout, nn.Dropout2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
"""What stands between layers and treats every unit alike, so that it commutes with any order."""
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
MOST_SWEEPS = 100
"""Over all layers; each improves the same bounded sum, and real networks take a handful."""


@dataclass(frozen=True)
class Layer:
    """A layer of a chain by the name of its module, and those of what has one number per unit: biases, norms."""

    name: str
    per_unit: tuple[str, ...]

    @property
    def weight(self) -> str:
        return f"{self.name}.weight"


def chain_of(model: nn.Module) -> list[Layer]:
    """The layers of a network whose layers follow one another, first to last.

    Raises ConfigError for every other network: where a unit feeds two layers, both orders would have to agree.
    """
    layers: list[Layer] = []
    seen: set[nn.Module] = set()
    units = 0
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, (nn.Sequential, *_UNITWISE)):
            continue
        if module not in seen and _is_layer(module):
            seen.add(module)
            units = len(module.weight)
            layers.append(Layer(name, (f"{name}.bias",) if module.bias is not None else ()))
        elif isinstance(module, _NORMS) and layers and module.num_features == units:
            own = (f"{name}.weight", f"{name}.bias") if module.affine else ()
            layers[-1] = Layer(layers[-1].name, (*layers[-1].per_unit, *own))
        else:
            what = f"`{name}` ({type(module).__name__})" if name else type(module).__name__
            raise ConfigError(
                f"control `transplant` matches the neurons of a chain of Linear and Conv2d layers, and {what} is no "
                "part of one; leave that control out"
            )
    return layers


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def match(first: Mapping[str, Tensor], second: Mapping[str, Tensor], layers: Sequence[Layer]) -> list[Order]:
    """Orders of the hidden layers' units, all but the last layer's, in which `second` is most like `first`.

    Both are states of one network. Beginning with the orders that they have, each layer in turn gets the best one for
    those of its neighbours, until a whole sweep improves nothing.
    """
    from scipy.optimize import linear_sum_assignment  # half a second, for one control

    ours, theirs = (_unit_weights(state, layers) for state in (first, second))
    sizes = [len(weights) for weights in ours]
    orders: list[Order] = [np.arange(size) for size in sizes]
    for _ in range(MOST_SWEEPS):
        improved = False
        for index in range(len(layers) - 1):
            likeness = _likeness(first, second, layers, ours, theirs, orders, index)
            _, found = linear_sum_assignment(likeness, maximize=True)
            here = np.arange(sizes[index])
            gain = likeness[here, found].sum() - likeness[here, orders[index]].sum()
            if gain > 1e-9 * np.abs(likeness).max(initial=0.0):
                orders[index], improved = found, True
        if not improved:
            break
    return orders[:-1]


def moved(masks: Masks, layers: Sequence[Layer], orders: Sequence[Order]) -> Masks:
    """Masks of the first network on the neurons of the second: as many weights kept in every layer and every unit."""
    found = {}
    below: Order | None = None
    for layer, order in zip(layers, [*orders, None], strict=True):
        keep = masks[layer.weight].keep
        target = torch.empty_like(keep)
        rows = torch.arange(len(keep)) if order is None else torch.from_numpy(order)
        blocks = keep.reshape(len(keep), -1 if below is None else len(below), *([] if below is None else [-1]))
        destination = target.view_as(blocks)
        if below is None:
            destination[rows] = blocks
        else:
            destination[rows[:, None], torch.from_numpy(below)[None, :]] = blocks
        found[layer.weight] = Mask(target)
        below = order
    return Masks({name: found[name] for name in masks})


def _unit_weights(state: Mapping[str, Tensor], layers: Sequence[Layer]) -> list[NDArray[np.float64]]:
    """The weights of each layer as (units, units of the layer below, what one of those contributes)."""
    found = []
    below: int | None = None
    for layer in layers:
        weight = state[layer.weight].double().numpy()
        units = len(weight)
        found.append(weight.reshape(units, weight.shape[1] if below is None else below, -1))
        below = units
    return found


def _likeness(
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    layers: Sequence[Layer],
    ours: Sequence[NDArray[np.float64]],
    theirs: Sequence[NDArray[np.float64]],
    orders: Sequence[Order],
    index: int,
) -> NDArray[np.float64]:
    """(units, units): what unit i of the first and unit j of the second contribute to the inner product as a pair."""
    units = len(ours[index])
    other = theirs[index] if index == 0 else theirs[index][:, orders[index - 1]]
    likeness = ours[index].reshape(units, -1) @ other.reshape(units, -1).T
    above = theirs[index + 1][orders[index + 1]]
    likeness += _columns(ours[index + 1]) @ _columns(above).T
    for name in layers[index].per_unit:
        likeness += np.outer(first[name].double().numpy(), second[name].double().numpy())
    return likeness


def _columns(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(units of the layer below, all that each gives to this layer)."""
    return weights.transpose(1, 0, 2).reshape(weights.shape[1], -1)
