"""The control `transplant`: does the mask fit other initial weights once the neurons are matched?

Adnan et al. 2025 (Sparse Training from Random Initialization: Aligning Lottery Ticket Masks using Weight Symmetry,
arXiv 2505.05143) find that a mask fails on fresh weights because these end in another order of neurons, and does much
better once it is moved along. They match activations of two trained dense networks; here the neurons are matched by
their weights. Moving the mask without matching is the control `reinit`.
"""

from __future__ import annotations

from tombola.studies.lottery.controls.control import Situation, control
from tombola.studies.lottery.controls.matching import chain_of, match, moved
from tombola.studies.lottery.rewind import Start


@control("transplant", title="transplanted", needs_host=True, check=chain_of, libraries=("scipy",))
def transplant(situation: Situation) -> Start:
    """The ticket's mask moved onto a second dense network's initial weights, neurons matched after both were trained.

    The second network, the host, is one more dense training per replicate. Where tickets are rewound to W_k, so is
    this; where weights stay, it starts from the host's W_0 on the whole recipe.
    """
    host, layers = situation.host(), chain_of(situation.model)
    masks = moved(situation.ticket.masks, layers, match(host.dense, host.trained, layers))
    if situation.mode.keeps_weights:
        return Start(host.first, masks, situation.recipe)
    return Start(host.first, masks, situation.ticket.recipe, situation.ticket.first)
