"""The order in which training meets its examples: a pure function of the seed and the epoch.

Nothing of it needs to be stored to continue a killed training: the iteration says where it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tombola.data import Examples
from tombola.data.augment import Augmentation, augment
from tombola.runs.seeds import derive_seed
from tombola.training.device import CPU
from tombola.training.huge_pages import prefer_large_pages


def iterations_per_epoch(examples: int, size: int) -> int:
    """Batches of at most `size` that it takes to meet every example once."""
    return math.ceil(examples / size)


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The positions of `count` examples in the order of an epoch."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch))
    return torch.randperm(count, generator=generator)


class Order:
    """Which of `count` examples each iteration meets, in batches of at most `size`.

    The order of an epoch is kept: to draw it takes time that grows with all examples and not with the batch.
    """

    def __init__(self, count: int, size: int, seed: int, home: torch.device = CPU) -> None:
        self.count, self.size, self.seed, self.home = count, min(size, count), seed, home
        self.per_epoch = iterations_per_epoch(count, self.size)
        self._epoch = -1
        self._positions = torch.empty(0, dtype=torch.int64)
        self.address = 0

    def at(self, iteration: int) -> Tensor:
        """The positions of the iteration's examples among all."""
        first, count = self.located(iteration)
        return self._positions[first : first + count]

    def located(self, iteration: int) -> tuple[int, int]:
        """The first place of the batch in its epoch's order, which then begins at `address`, and its size."""
        epoch, number = divmod(iteration, self.per_epoch)
        if epoch != self._epoch:
            self._positions = epoch_order(self.count, self.seed, epoch).to(self.home)
            self.address = self._positions.data_ptr()
            self._epoch = epoch
        first = number * self.size
        return first, min(self.size, self.count - first)


class Batches:
    """Batches of at most `size` examples; every epoch a new permutation, its last batch may be smaller.

    What `augmentation` does to a batch depends on the seed and the iteration alone, too. Batches are on `device`,
    whether or not the examples are.
    """

    def __init__(
        self,
        examples: Examples,
        size: int,
        seed: int,
        augmentation: Sequence[Augmentation] = (),
        device: torch.device = CPU,
    ) -> None:
        self.examples = examples
        self.device, home = device, examples.inputs.device
        self.seed = seed
        self.augmentation = augmentation
        self._order = Order(len(examples), size, seed, home)
        self.size, self.per_epoch = self._order.size, self._order.per_epoch
        self._inputs = torch.empty(self.size, *examples.inputs.shape[1:], device=home)
        self._targets = torch.empty(self.size, dtype=torch.int64, device=home)
        self._in_order = torch.arange(self.size)
        self._contiguous: tuple[Tensor, Tensor] | None = None

    def at(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of `iteration`, in memory that the next call reuses."""
        positions = self._order.at(iteration)
        count = len(positions)
        inputs = torch.index_select(self.examples.inputs, 0, positions, out=self._inputs[:count])
        targets = torch.index_select(self.examples.targets, 0, positions, out=self._targets[:count])
        inputs, targets = inputs.to(self.device), targets.to(self.device)
        if self.augmentation:
            chance = torch.Generator().manual_seed(derive_seed(self.seed, "augment", iteration))
            inputs = augment(inputs, self.augmentation, chance)
        return inputs, targets

    def located(self, iteration: int) -> tuple[int, int, int, int]:
        """Where the batch is: how many examples, and the addresses of inputs, of positions among them, of targets.

        The inputs are float32, positions and targets 64-bit numbers, all without gaps.
        """
        if self.augmentation:
            inputs, targets = self.at(iteration)
            self._augmented = inputs.contiguous()  # alive until the next call
            return len(inputs), self._augmented.data_ptr(), self._in_order.data_ptr(), targets.data_ptr()
        if self._contiguous is None:
            self._contiguous = self.examples.inputs.contiguous(), self.examples.targets.contiguous()
            self._inputs_address, self._targets_address = (tensor.data_ptr() for tensor in self._contiguous)
            prefer_large_pages(self._contiguous[0])
        first, count = self._order.located(iteration)
        return count, self._inputs_address, self._order.address + 8 * first, self._targets_address


def draw_batches(
    examples: Examples, size: int, count: int, seed: int, device: torch.device = CPU
) -> list[tuple[Tensor, Tensor]]:
    """`count` batches in memory of their own, for criteria that look at data; not augmented."""
    drawn = map(Batches(examples, size, seed, device=device).at, range(count))
    return [(inputs.clone(), targets.clone()) for inputs, targets in drawn]
