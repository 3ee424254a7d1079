"""Controls: what a ticket must beat to be called winning, and others that show why it does.

One file each, and one line here, in the order of tables and figures.
"""

from tombola.studies.lottery.controls import random, reinit, signs, transplant  # noqa: F401 (registers them)
from tombola.studies.lottery.controls.control import (
    HOST,
    Control,
    Host,
    Situation,
    State,
    controls,
    deciding,
    title_of,
)

__all__ = ["HOST", "Control", "Host", "Situation", "State", "controls", "deciding", "title_of"]
