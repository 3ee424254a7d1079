"""The four answers of a hybrid study, computed from its rows and those of its lotteries, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tombola.runs.rows import Row
from tombola.studies.hybrid.contest import contest
from tombola.studies.hybrid.costs import cost
from tombola.studies.hybrid.degradation import degradation
from tombola.studies.hybrid.maps import maps
from tombola.studies.hybrid.questions import TITLE, Answer, Lottery
from tombola.studies.hybrid.result import HybridResult


def answers_of(result: HybridResult) -> list[Answer]:
    """The answers of a finished study."""
    return four_answers(result.rows, lotteries_of(result), result.config.gate_exit)


def lotteries_of(result: HybridResult) -> dict[str, Lottery]:
    """The study's lotteries as the answers read them, in the order in which they name them."""
    return {name: Lottery.of(name, result.lotteries[name]) for name in TITLE if name in result.lotteries}


def four_answers(rows: Sequence[Row], lotteries: Mapping[str, Lottery], gate_exit: str) -> list[Answer]:
    """Degradation, contest, cost and feature maps, in the order of the questions."""
    return [degradation(lotteries), contest(lotteries), cost(rows, lotteries, gate_exit), maps(rows)]
