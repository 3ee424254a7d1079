"""Which layers of a network are trained on sparse kernels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tombola.pruning import Masks
from tombola.training.sparse.chain import Link

CROSSOVER, LARGE_BATCH, CROSSOVER_OF_LARGE = 0.85, 128, 0.6
"""Density up to which a layer's sparse step was faster than its dense one (`benchmarks/sparse_training.py`) on
one thread: for batches of up to `LARGE_BATCH` examples, and for larger ones, of which dense products make more.

A number and not a measurement at the beginning of each training, because a measurement would differ from one start to
the next, and with it the rounding of a training that is continued.
"""


def sparse_layers(
    model: nn.Module, chain: Sequence[Link], masks: Masks, batch: int, *, everything: bool = False
) -> list[bool]:
    """For each layer whether its mask is sparse enough for batches of `batch`; `everything` says yes for all."""
    crossover = CROSSOVER if batch <= LARGE_BATCH else CROSSOVER_OF_LARGE
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    weights = [names[id(link.module.weight)] for link in chain]
    densities = [masks[name].density if name in masks else 1.0 for name in weights]
    return [everything or density <= crossover for density in densities]
