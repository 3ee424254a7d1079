"""Dead units: those that no kept weight reaches, which give a constant, or whose output no kept weight reads.

Chains of Linear and ReLU are followed here, by their masks alone. Any other network is traced, as for `remove_units`,
which takes the same units away for good.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tombola.compression.layers import IDENTITIES
from tombola.compression.removal.choosing import silence
from tombola.compression.removal.following import read
from tombola.compression.removal.groups import group, places_of
from tombola.compression.removal.masked import Masked
from tombola.compression.removal.trace import Example, trace
from tombola.compression.removal.verify import TOLERANCE, difference
from tombola.errors import ModelError
from tombola.pruning import Mask, Masks
from tombola.pruning.copies import copy_of
from tombola.pruning.wrapped import unwrapped
from tombola.training.gradients import linear_chain


@dataclass(frozen=True)
class LayerUnits:
    """Neurons of a layer, or channels that several layers share; those that have to stay are none of them."""

    name: str
    units: int
    dead: int


@dataclass(frozen=True)
class DeadUnits:
    """What is dead of a network under masks.

    `model` is a copy whose dead weights are 0 and whose biases hold the constants that dead units gave; `masks` are
    those of what is left in it. It gives the same outputs; `error` is the largest difference that was found, as a
    fraction of the largest output.
    """

    layers: tuple[LayerUnits, ...]
    masks: Masks
    model: nn.Module
    error: float

    @property
    def units(self) -> int:
        return sum(layer.units for layer in self.layers)

    @property
    def dead(self) -> int:
        return sum(layer.dead for layer in self.layers)


def dead_units(model: nn.Module, masks: Masks, example: Example) -> DeadUnits:
    """Which units masks leave without effect, to a fixed point, and the network without their weights.

    A unit is dead when every layer that reads it reads none of it by the masks, is dead itself, or always reads one
    number. Such constants are followed through activations, normalisation and pools and are added to the next bias;
    one that enters a convolution padded with zeros stays. `remove_units` takes the same arguments and makes the network
    smaller.

    Args:
        model: Any module that torch.export can trace; it is not changed.
        masks: What it keeps.
        example: What the model is called with.

    Returns:
        DeadUnits: the count by layer, what is left of the masks, and an equal model of the same shapes.

    Raises:
        ModelError: where the model cannot be traced, or gives something else without them.
        PruningError: for masks of another model, and an unknown operation that meets units.

    Examples:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> keep = {"0.weight": torch.ones(3, 4).bool(), "2.weight": torch.ones(2, 3).bool()}
        >>> keep["0.weight"][0] = False  # nothing reaches the first unit
        >>> keep["2.weight"][:, 1] = False  # nobody reads the second
        >>> found = dead_units(model, Masks.from_tensors(keep), torch.zeros(1, 4))
        >>> found.layers, found.masks.kept
        ((LayerUnits(name='0', units=3, dead=2),), 6)
    """
    wrapped, model = model, unwrapped(model)
    masks = masks.of(wrapped).of(model)
    grouped = group(read(trace(model, example)))
    reference = copy_of(model).eval()
    masks.apply_(reference)
    changed = copy_of(reference)
    masked = Masked(grouped, changed, {name: mask.keep.clone() for name, mask in masks.items()})
    gone = masked.removable()
    masked.fold(gone)
    places = places_of(gone)
    silence(changed, places, grouped)
    for (tensor, dim), indices in places.items():
        if tensor in masked.keeps:
            masked.keeps[tensor].index_fill_(dim, torch.from_numpy(indices), False)
    left = Masks({name: Mask(masked.keeps[name]) for name in masks})
    left.apply_(changed)
    error = difference(reference, copy_of(changed), example)
    if not error <= TOLERANCE:
        raise ModelError(f"without its dead units its outputs differ by {error:.1e} of the largest one")
    for module, original in zip(changed.modules(), model.modules(), strict=True):
        module.training = original.training
    labels = {unit.label for unit in gone}
    layers = tuple(
        LayerUnits(one.name, len(one.units), sum(unit.label in labels for unit in one.units)) for one in grouped.free
    )
    return DeadUnits(layers, left, changed, error)


@dataclass(frozen=True)
class ChainUnits:
    """Of a chain: the kept weights on a way from an input to an output, hidden units, and how many of these are
    dead."""

    weights: int
    units: int
    dead: int


def units_of_chain(model: nn.Module, masks: Masks) -> ChainUnits | None:
    """What is dead of a chain of Linear and ReLU layers; None for models that are no such chain.

    A unit without kept inputs is a constant, which the next layer's bias can hold; one without kept outputs is read by
    nobody: neither needs its other weights.
    """
    plain = nn.Sequential(*(m for m in model if type(m) not in IDENTITIES)) if type(model) is nn.Sequential else model
    layers = linear_chain(plain)
    if layers is None or any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers):
        return None
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    keeps = [_keep(masks, names[id(layer.weight)], layer.weight) for layer in layers]
    reached = [torch.ones(keeps[0].shape[1], dtype=torch.bool)]
    for keep in keeps[:-1]:
        reached.append((keep & reached[-1]).any(1))
    used = [torch.ones(len(keeps[-1]), dtype=torch.bool)]
    for keep in reversed(keeps[1:]):
        used.insert(0, (keep & used[0][:, None]).any(0))
    weights = sum(int((k & i & o[:, None]).sum()) for k, i, o in zip(keeps, reached, used, strict=True))
    alive = [int((i & o).sum()) for i, o in zip(reached[1:], used, strict=False)]
    units = sum(len(part) for part in reached[1:])
    return ChainUnits(weights, units, units - sum(alive))


def _keep(masks: Masks, name: str, weight: Tensor) -> Tensor:
    return masks[name].keep.cpu() if name in masks else torch.ones(weight.shape, dtype=torch.bool)
