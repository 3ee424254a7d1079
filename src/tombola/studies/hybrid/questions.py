"""The four questions of a hybrid study, what an answer is, and a lottery as the answers read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tombola.runs.rows import Row, rows_of
from tombola.studies.lottery.metrics import rows_of_mode
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.verdict import Verdict, judge

DEGRADATION = "At which sparsity does accuracy begin to degrade, LeNet against the VGG head?"
CONTEST = "Does the ticket match or beat the dense network?"
COST = "What does the ticket cost against the early exit and its forest, in FLOPs and in measured time?"
MAPS = "Do a ticket's feature maps still serve the forest?"

TITLE = {"lenet": "LeNet", "head": "the VGG head", "cnn": "the CNN"}
"""The lotteries of a study in the order in which answers name them."""


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
    """A lottery by name: trainings of one mode of rewinding, the looks at them, and the points a ticket may lose."""

    name: str
    architecture: str
    tolerance: float
    rows: Sequence[Row]

    @classmethod
    def of(cls, name: str, result: Result) -> Lottery:
        """The first mode of rewinding, which gives a run its ticket."""
        config = result.config
        rows = [row for row in rows_of_mode(result.rows, config.rewind[0]) if row["kind"] in ("training", "look")]
        return cls(name, config.model.architecture, config.tolerance, rows)

    @property
    def title(self) -> str:
        return f"{TITLE[self.name]} ({self.architecture})"

    @cached_property
    def verdict(self) -> Verdict:
        return judge(self.rows, self.tolerance)

    @property
    def rounds(self) -> list[int]:
        return sorted({row["round"] for row in self.branch("ticket")})

    def branch(self, branch: str, index: int | None = None) -> list[Row]:
        """The trainings of a branch, of one round or of all."""
        where = {} if index is None else {"round": index}
        return rows_of(self.rows, branch=branch, **where)

    @property
    def ticket_round(self) -> int | None:
        """The round that the run's ticket is of: the verdict's when it won, else the last (as `Result` has it)."""
        if self.verdict.outcome == "winning":
            return self.verdict.round
        return self.rounds[-1] if self.rounds else None


def not_run(name: str) -> str:
    """Why there is nothing to say of a lottery."""
    return f"the lottery of {TITLE[name]} was not run"
