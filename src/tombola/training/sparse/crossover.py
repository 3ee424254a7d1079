"""Which layers of a network are trained on sparse kernels.

The densities up to which they are are numbers and not measurements at the beginning of each training, because a
measurement would differ from one start to the next, and with it the rounding of a training that is continued.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from tombola.kernels.target import host
from tombola.pruning import Masks
from tombola.training.sparse.chain import Link

CROSSOVER, LARGE_BATCH, CROSSOVER_OF_LARGE = 0.85, 128, 0.6
"""Density up to which a dense layer's sparse step was faster than its dense one (`benchmarks/sparse_training.py`) on
one thread: for batches of up to `LARGE_BATCH` examples, and for larger ones, of which dense products make more."""

CROSSOVER_OF_CONVOLUTIONS = 0.7
"""Density of all multiply-adds up to which a convolutional network's sparse step was clearly faster than its dense one:
Conv-2 to Conv-6 break even between 0.75 and 1; LeNet-5, whose convolutions are narrow for dense kernels, is faster at
any density."""


def sparse_layers(
    model: nn.Module, chain: Sequence[Link], masks: Masks, batch: int, *, everything: bool = False
) -> list[bool]:
    """For each layer whether it is trained on sparse kernels in batches of `batch`; `everything` says yes for all.

    A network with convolutions goes to the kernels as a whole, its dense layers one by one, or else not at all.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    weights = [names[id(link.module.weight)] for link in chain]
    densities = [masks[name].density if name in masks else 1.0 for name in weights]
    if everything:
        return [True] * len(chain)
    if chain[0].window is not None and _cost(chain, densities, batch) > CROSSOVER_OF_CONVOLUTIONS:
        return [False] * len(chain)
    crossover = CROSSOVER if batch <= LARGE_BATCH else CROSSOVER_OF_LARGE
    return [link.window is not None or density <= crossover for link, density in zip(chain, densities, strict=True)]


def _cost(chain: Sequence[Link], densities: Sequence[float], batch: int) -> float:
    """The fraction of multiply-adds that kernels do: those of kept weights, for batches filled up to whole vectors."""
    work = _multiply_adds(chain)
    kept = sum(amount * density for amount, density in zip(work, densities, strict=True))
    lanes = host().lanes
    return kept / sum(work) * (-(-batch // lanes) * lanes) / batch


def _multiply_adds(chain: Sequence[Link]) -> list[float]:
    """Of every layer for one example.

    The size of images follows from how many features the first dense layer reads, if they are square: nearly so for
    those that are not.
    """
    work = [float(link.module.weight.numel()) for link in chain]
    convolutions = [link for link in chain if link.window is not None]
    side = math.sqrt(chain[len(convolutions)].module.weight.shape[1] / len(convolutions[-1].module.weight))
    for number in range(len(convolutions) - 1, -1, -1):
        window = convolutions[number].window
        assert window is not None
        side *= window.pool
        work[number] *= side**2
        side += window.kernel[0] - 1 - 2 * window.padding[0]
    return work
