"""Layers that masks leave nearly empty: next to nothing passes them, whatever the rest of the network keeps."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from tombola.pruning.masks import Masks
from tombola.pruning.prunable import Layout
from tombola.pruning.structures import Structure, Weight
from tombola.pruning.units import divides

FEW = 20
"""A layer of so many units or more that is left with one is nearly empty; below, one may be many."""
CONNECTIONS = 10
"""A layer that had so many inputs for each output, or more, should keep one; others a tenth of what they had."""


class NearlyEmptyLayerWarning(UserWarning):
    """Masks leave next to nothing of a layer."""


@dataclass(frozen=True)
class NearlyEmpty:
    """A layer, by the name of its weight, and what is left of it: `kept` of `total` units (`unit`: weight, filter)."""

    name: str
    kept: int
    total: int
    unit: str

    def __str__(self) -> str:
        return f"{self.name} ({self.kept} of {self.total} {self.unit}s)"


def nearly_empty(masks: Masks, layouts: Mapping[str, Layout], structure: Structure | None = None) -> list[NearlyEmpty]:
    """The layers that are left with less than 1 % of their units (with one, if they had 20 or more), or with fewer than
    one input for each output.

    Where outputs have fewer than ten inputs by design, as in depthwise convolutions, a tenth of the connections is
    enough. Rounding alone empties nothing.

    Args:
        masks: Those of a model.
        layouts: How the weights of its layers are read, by parameter name (`pruning.prunable.weight_layouts`).
        structure: Units are those of a structure where a layer has them, else weights.

    Returns:
        One entry per such layer, with what is left of it.

    Examples:
        >>> from torch import nn
        >>> from tombola.pruning import Mask, Masks
        >>> from tombola.pruning.prunable import weight_layouts
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(100, 50), nn.Linear(50, 10))
        >>> keep = torch.zeros(50, 100, dtype=torch.bool)
        >>> keep[0, 0] = True
        >>> masks = Masks({"0.weight": Mask(keep), "1.weight": Mask(torch.ones(10, 50, dtype=torch.bool))})
        >>> [layer.name for layer in nearly_empty(masks, weight_layouts(model))]
        ['0.weight']
    """
    found = []
    for name, layout in layouts.items():
        keep = masks[name].keep
        own = structure if structure is not None and _has_units(structure, layout) else Weight()
        alive = own.alive(keep, layout)
        kept, total = int(alive.count_nonzero()), alive.numel()
        below = 100 * (kept + 0.5) < total or (kept == 1 and total >= FEW) or not kept
        if total and (below or _cut_off(keep, layout)):
            found.append(NearlyEmpty(name, kept, total, "weight" if ":" in own.name else own.name))
    return found


def warn_of_nearly_empty(found: Sequence[NearlyEmpty], in_use: Collection[object]) -> None:
    """One warning for all of them, with what helps but for what is `in_use`; for `prune`, in its caller's name."""
    if not found:
        return
    ways = [way for way, name in (("distribution='erk'", "erk"), ("criterion='lamp'", "lamp")) if name not in in_use]
    helps = ", ".join([*ways, "protect=[...]", "a higher min_keep"])
    left = "layer is" if len(found) == 1 else "layers are"
    warnings.warn(
        f"{len(found)} {left} left nearly empty: {', '.join(map(str, found))}; hardly anything passes there, and the "
        f"whole network may fail; what helps: {helps} or a lower sparsity",
        NearlyEmptyLayerWarning,
        stacklevel=3,
    )


@contextlib.contextmanager
def not_warning() -> Iterator[None]:
    """Within the block nothing is said of nearly empty layers: for those who prune often and report once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NearlyEmptyLayerWarning)
        yield


def _has_units(structure: Structure, layout: Layout) -> bool:
    return bool(layout.shape.numel()) and structure.fits(layout) and divides(structure, layout)


def _cut_off(keep: Tensor, layout: Layout) -> bool:
    """Whether fewer connections (an input of an output, at any kernel position) are left than there should be."""
    connections = int(layout.canonical(keep).any(3).count_nonzero())
    outputs = layout.groups * layout.outputs
    return connections < outputs * min(layout.inputs, CONNECTIONS) // CONNECTIONS
