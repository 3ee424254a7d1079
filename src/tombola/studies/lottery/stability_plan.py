"""What `tombola stability` will train, and how long that takes: the run itself has measured it. Nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tombola.reports.terminal import say
from tombola.runs.rows import rows_of
from tombola.studies.base.numbers import counted, duration
from tombola.studies.base.opened import read_result
from tombola.studies.base.output import Numbers
from tombola.studies.lottery.stability import asked


@dataclass(frozen=True)
class StabilityPlan:
    """So many replicates with so many copies each; seconds as the run's own trainings of that round took."""

    replicates: int
    copies: int
    seconds: float
    workers: int

    @property
    def line(self) -> str:
        return (
            f"{self.replicates * self.copies} trainings: {self.copies} copies in each of {self.replicates} replicates, "
            f"about {duration(self.seconds)} with {counted(self.workers, 'worker')}"
        )

    @property
    def numbers(self) -> Numbers:
        said = {"replicates": self.replicates, "copies": self.copies, "seconds": self.seconds}
        return Numbers([said], None, {"seconds": "s"})

    def show(self, console: Console) -> None:
        say(console, self.line)


def plan_stability(root: Path, index: int, *, mode: str | None, copies: int, workers: int) -> StabilityPlan:
    """The plan of `run_stability` with these; ConfigError as there."""
    opened, chosen = asked(root, index, mode, copies)
    rows = rows_of(read_result(opened).rows, kind="training", round=index)
    own = [row for row in rows if row["branch"] in ("dense", "ticket") and row["rewind"] in (None, str(chosen))]
    workers = min(workers, len(own))
    waves = -(-len(own) // workers)
    return StabilityPlan(len(own), copies, waves * copies * sum(row["seconds"] for row in own) / len(own), workers)
