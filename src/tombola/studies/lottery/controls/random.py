"""The control `random`: is it this mask, or would any do?"""

from __future__ import annotations

from dataclasses import replace

import torch

from tombola.pruning import Mask, Masks
from tombola.studies.lottery.controls.control import Situation, control
from tombola.studies.lottery.rewind import Start


@control("random", title="random mask", decides=True, draws_anew=False)
def random(situation: Situation) -> Start:
    """As many weights kept in every layer, elsewhere; their values are those that the ticket restarts from.

    Where weights stay, those outside the ticket's masks are 0 by now, and a shuffled mask would keep mostly zeros:
    there it starts from W_0 on the whole recipe.
    """
    masks = shuffled(situation.ticket.masks, situation.chance)
    if situation.mode.keeps_weights:
        return Start(situation.initial, masks, situation.recipe)
    return replace(situation.ticket, masks=masks, earlier=None)


def shuffled(masks: Masks, seed: int) -> Masks:
    """As many weights kept in every layer, their positions drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    return Masks(
        {
            name: Mask(mask.keep.reshape(-1)[torch.randperm(mask.total, generator=generator)].view(mask.shape))
            for name, mask in masks.items()
        }
    )
