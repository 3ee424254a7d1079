"""The control `reinit`: is it the mask alone, or the weights it was found with?"""

from __future__ import annotations

from tombola.studies.lottery.controls.control import Situation, control
from tombola.studies.lottery.rewind import Start


@control("reinit", title="re-initialised", decides=True)
def reinit(situation: Situation) -> Start:
    """The ticket's mask on fresh initial weights from the same distribution, trained on the whole recipe."""
    return Start(situation.fresh(situation.chance), situation.ticket.masks, situation.recipe)
