"""The control `signs`: are the signs of the initial weights all that the mask needs of them?

Zhou et al. 2019 (Deconstructing Lottery Tickets, arXiv 1905.01067) found that masks do well on other magnitudes as long
as the signs are those of W_0.
"""

from __future__ import annotations

import torch

from tombola.studies.lottery.controls.control import Situation, control
from tombola.studies.lottery.rewind import Start


@control("signs", title="signs of W_0")
def signs(situation: Situation) -> Start:
    """The ticket's mask on fresh magnitudes that have W_0's signs, trained on the whole recipe."""
    fresh = dict(situation.fresh(situation.chance))
    for name in situation.ticket.masks:
        fresh[name] = torch.copysign(fresh[name].abs(), situation.initial[name])
    return Start(fresh, situation.ticket.masks, situation.recipe)
