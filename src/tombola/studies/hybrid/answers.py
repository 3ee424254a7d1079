"""The four answers of a hybrid study, computed from its rows and those of its lotteries, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tombola.runs.rows import Row
from tombola.studies.hybrid.contest import contest
from tombola.studies.hybrid.costs import cost
from tombola.studies.hybrid.degradation import degradation
from tombola.studies.hybrid.maps import maps
from tombola.studies.hybrid.questions import Answer, Lottery
from tombola.studies.hybrid.result import HybridResult


def answers_of(result: HybridResult) -> list[Answer]:
    """The answers of a finished study."""
    lotteries = {name: Lottery.of(name, lottery) for name, lottery in result.lotteries.items()}
    return four_answers(result.rows, lotteries, result.config.gate_exit)


def four_answers(rows: Sequence[Row], lotteries: Mapping[str, Lottery], gate_exit: str) -> list[Answer]:
    """Degradation, contest, cost and feature maps, in the order of the questions."""
    return [degradation(lotteries), contest(lotteries), cost(rows, lotteries, gate_exit), maps(rows)]
