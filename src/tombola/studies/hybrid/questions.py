"""The four questions of a hybrid study, what an answer is, and a lottery as the answers read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tombola.runs.rows import Row, rows_of
from tombola.studies.base.numbers import percent
from tombola.studies.lottery.over_replicates import rows_of_mode
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.verdict import Verdict, judge

DEGRADATION = "At which sparsity does accuracy begin to degrade, LeNet against the head?"
CONTEST = "Does the ticket match or beat the dense network?"
COST = "What does the ticket cost against the early exit and its forest, in FLOPs and in measured time?"
MAPS = "Do a ticket's feature maps still serve the forest?"

TITLE = {"lenet": "LeNet", "head": "the head", "cnn": "the CNN"}
"""The lotteries of a study by their roles, in the order in which answers name them."""
LOTTERY_ROWS = ("training", "look")
"""Kinds of rows of a lottery that its verdict is made of."""


@dataclass(frozen=True)
class Answer:
    """An answer in plain sentences, what it comes to first; `numbers` are the same for a program."""

    question: str
    sentences: tuple[str, ...]
    numbers: dict[str, Any]

    @property
    def lead(self) -> str:
        return self.sentences[0]

    @property
    def text(self) -> str:
        return " ".join(self.sentences)

    @property
    def entry(self) -> dict[str, Any]:
        return {"question": self.question, "answer": self.text, "numbers": self.numbers}


@dataclass(frozen=True)
class Lottery:
    """A lottery by name: its rows of one mode of rewinding, and the points a ticket may lose.

    The study's ticket is that of the target density, the last round. The verdict may speak of another one.
    """

    name: str
    architecture: str
    tolerance: float
    rows: Sequence[Row]

    @classmethod
    def of(cls, name: str, result: Result) -> Lottery:
        """The first mode of rewinding, which gives a run its ticket."""
        config = result.config
        rows = [row for row in rows_of_mode(result.rows, config.rewind[0]) if row["kind"] in LOTTERY_ROWS]
        return cls(name, config.model.title, config.tolerance, rows)

    @property
    def title(self) -> str:
        return f"{TITLE[self.name]} ({self.architecture})"

    @cached_property
    def verdict(self) -> Verdict:
        return judge(self.rows, self.tolerance)

    @cached_property
    def rounds(self) -> list[int]:
        return sorted({row["round"] for row in self.branch("ticket")})

    def branch(self, branch: str, index: int | None = None) -> list[Row]:
        """The trainings of a branch, of one round or of all."""
        where = {} if index is None else {"round": index}
        return rows_of(self.rows, kind="training", branch=branch, **where)

    @property
    def ticket_round(self) -> int | None:
        """The round of the study's ticket: the last one, of the target density; None where no ticket was trained."""
        return self.rounds[-1] if self.rounds else None

    def ticket_words(self, index: int) -> str:
        """`15.0% of the weights, round 8`."""
        return f"{percent(self.branch('ticket', index)[0]['density'])} of the weights, round {index}"

    @property
    def ticket_numbers(self) -> dict[str, Any] | None:
        """Which ticket the study's is, for a program; `verdict_round` is that of the lottery's verdict."""
        if self.ticket_round is None:
            return None
        density = self.branch("ticket", self.ticket_round)[0]["density"]
        return {"round": self.ticket_round, "density": density, "verdict_round": self.verdict.round}


def not_run(name: str) -> str:
    """Why there is nothing to say of a lottery."""
    return f"the lottery of {TITLE[name]} was not run"


def numbers_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """The `numbers` of what was found of each lottery, for a program; of others why there are none."""
    return {name: found[name].numbers if name in found else {"reason": not_run(name)} for name in TITLE}


def tickets_line(lotteries: Sequence[Lottery]) -> str:
    """Which tickets a study speaks of, wherever it says *ticket*."""
    named = [
        f"{TITLE[lottery.name]}'s keeps {lottery.ticket_words(lottery.ticket_round)}"
        for lottery in lotteries
        if lottery.ticket_round is not None
    ]
    return f"The ticket is everywhere that of the target density: {'; '.join(named)}." if named else "No ticket."
