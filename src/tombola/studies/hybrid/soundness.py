"""What is said of networks of a hybrid study that learned nothing or diverged: in tables, headlines and answers."""

from __future__ import annotations

from collections.abc import Mapping

from tombola.studies.base.numbers import begun, listed
from tombola.studies.base.soundness import faults_of
from tombola.studies.hybrid.questions import Lottery
from tombola.studies.hybrid.summaries import Measured
from tombola.studies.hybrid.units import NETWORK
from tombola.studies.lottery.controls import controls


def faults(lottery: Lottery, branch: str, index: int | None = None) -> str | None:
    """`learned nothing in replicate 3 (of 5)`; None for a network that is sound, or of which the rows do not say."""
    return faults_of(lottery.branch(branch, index))


def fault_sentence(lottery: Lottery, index: int) -> str | None:
    """A sentence for the networks of a round that learned nothing or diverged; None where all are sound."""
    found = {branch: fault for branch in ("ticket", *controls) if (fault := faults(lottery, branch, index))}
    said = " and ".join(f"the {branch} network {fault}" for branch, fault in found.items())
    return f"{begun(said)} ({lottery.ticket_words(index)})." if said else None


def unsound(networks: Mapping[str, Measured]) -> list[str]:
    """`the dense network learned nothing`, for every network with classes of its own that did not learn them."""
    return [f"the {NETWORK[name]} network {found.fault}" for name, found in networks.items() if found.fault]


def warning(networks: Mapping[str, Measured]) -> str:
    """What an answer begins with where networks are not sound, else nothing."""
    found = unsound(networks)
    return f"Beware: {listed(found)}. " if found else ""
