"""Random changes of a batch that keep its labels true. On tensors, all images of a batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from tombola.errors import DataError

Augmentation = Literal["flip", "crop"]
MARGIN = 4


def augment(inputs: Tensor, kinds: Sequence[Augmentation], generator: torch.Generator) -> Tensor:
    """`inputs` (n, channels, height, width), each image changed by chance; `inputs` itself stays as it is.

    `flip` mirrors an image left to right with probability 1/2. `crop` puts 4 zeros on every side and takes a
    window of the old size anywhere in it, each of the 9 × 9 places being as likely (He et al. 2016, arXiv
    1512.03385, section 4.2). The zeros are black in [0, 1] and the mean where inputs are normalised. Their order in
    `kinds` does not matter. All chance comes from `generator`.
    """
    if unknown := set(kinds) - set(get_args(Augmentation)):
        raise DataError(f"unknown augmentation {min(unknown)!r}; known: {', '.join(get_args(Augmentation))}")
    if not kinds:
        return inputs
    if inputs.dim() != 4:
        raise DataError(f"augmentation is for images; these inputs have shape {tuple(inputs.shape[1:])}")
    count, channels, height, width = inputs.shape
    rows = torch.arange(height).expand(count, height)
    columns = torch.arange(width).expand(count, width)
    if "flip" in kinds:
        mirrored = torch.randint(2, (count, 1), generator=generator, dtype=torch.bool)
        columns = torch.where(mirrored, columns.flip(1), columns)
    if "crop" in kinds:
        shifts = torch.randint(2 * MARGIN + 1, (2, count, 1), generator=generator)
        rows, columns = rows + shifts[0], columns + shifts[1]
        inputs = functional.pad(inputs, (MARGIN,) * 4)
    rows, columns = rows.to(inputs.device), columns.to(inputs.device)  # chance is drawn on the CPU for every device
    positions = (rows.unsqueeze(2) * inputs.shape[3] + columns.unsqueeze(1)).reshape(count, 1, height * width)
    chosen = inputs.flatten(2).gather(2, positions.expand(count, channels, height * width))
    return chosen.reshape(count, channels, height, width)
