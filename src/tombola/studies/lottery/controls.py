"""Controls: what a ticket must beat to be called winning."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tombola.models import ModelSpec, build
from tombola.pruning import Mask, Masks


def shuffled(masks: Masks, seed: int) -> Masks:
    """The control `random`: as many weights kept in every layer, their positions drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    return Masks(
        {
            name: Mask(mask.keep.reshape(-1)[torch.randperm(mask.total, generator=generator)].view(mask.shape))
            for name, mask in masks.items()
        }
    )


def reinitialised(spec: ModelSpec, seed: int) -> Mapping[str, Tensor]:
    """The control `reinit`: fresh initial weights from the same distribution, for the same mask."""
    return build(spec.model_copy(update={"seed": seed})).state_dict()
