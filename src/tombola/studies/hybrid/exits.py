"""Features: what the images at an exit are pooled to.

Where a network can be cut is `tombola.models.exits`; what is learnt from features is `forests`, who leaves `gates`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tombola.errors import ModelError
from tombola.models.exits import Exit, layers_of
from tombola.pruning.modes import evaluation_mode
from tombola.registry import Registry
from tombola.training.device import device_of

poolings: Registry[Callable[[], nn.Module]] = Registry("kind of features")


@poolings.register("gap")
def _mean() -> nn.Module:
    """The mean of every channel over the image: as many features as channels."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


@poolings.register("gap+max")
def _mean_and_most() -> nn.Module:
    """The mean of every channel, then the largest value of every one: two features a channel."""
    return MeanAndMost()


@poolings.register("grid")
def _grid() -> nn.Module:
    """The means over a 2×2 grid: four features a channel, which know where something is."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())


class MeanAndMost(nn.Module):
    """Images (n, channels, height, width) to (n, 2·channels): their means, then their largest values."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images.mean((2, 3)), images.amax((2, 3))], 1)


def features_at(
    model: nn.Module, exits: Sequence[Exit], kinds: Sequence[str], inputs: Tensor, batch_size: int = 64
) -> dict[tuple[str, str], NDArray[np.float32]]:
    """Features (n, f) of `inputs` (n, channels, height, width) for every name of an exit and kind of features.

    One pass through the network, in evaluation mode and where it is, serves all and ends behind the last exit. Raises
    ModelError where an exit gives no images.
    """
    modules = list(layers_of(model).values())[: max((exit.length for exit in exits), default=0)]
    pools = {kind: poolings.get(kind)() for kind in kinds}
    found: dict[tuple[str, str], list[Tensor]] = {(exit.name, kind): [] for exit in exits for kind in kinds}
    with evaluation_mode(model), torch.no_grad():
        for images in inputs.split(batch_size):
            hidden = images.to(device_of(model))
            for length, module in enumerate(modules, start=1):
                hidden = module(hidden)
                for exit in (exit for exit in exits if exit.length == length):
                    _check_image(exit, hidden)
                    for kind, pool in pools.items():
                        found[exit.name, kind].append(pool(hidden).cpu())
    return {key: torch.cat(parts).numpy().astype(np.float32, copy=False) for key, parts in found.items()}


def _check_image(exit: Exit, hidden: Tensor) -> None:
    if hidden.dim() != 4:
        raise ModelError(
            f"no exit at {exit.name!r}: it gives a tensor of shape {tuple(hidden.shape)} and not images "
            "(n, channels, height, width)"
        )
