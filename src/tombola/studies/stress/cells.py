"""The cells of a study: one for each network that is pruned and made to learn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tombola.runs.rows import Row
from tombola.studies.stress.config import DENSE, GRADUAL, StressConfig, label_of

KEY = ("model", "strategy", "level", "draw", "remedy", "seed")


@dataclass(frozen=True, order=True)
class CellKey:
    """Which network: what is removed of which model, how, and in which replicate (`seed`)."""

    model: str
    strategy: str
    level: float = 0.0
    draw: int = 0
    remedy: str = "none"
    seed: int = 0

    @property
    def columns(self) -> Row:
        """The columns that say so in every row."""
        return {name: getattr(self, name) for name in KEY}

    @property
    def is_reference(self) -> bool:
        """Whether nothing is removed."""
        return self.strategy in (DENSE, GRADUAL)

    @property
    def name(self) -> str:
        """Of its folder of checkpoints; and as a person reads it."""
        parts = [f"{self.strategy}_{self.level:g}" if not self.is_reference else self.strategy]
        parts += [f"draw-{self.draw}"] if self.draw else []
        parts += [self.remedy] if self.remedy != "none" else []
        return "-".join([self.model, *parts, f"seed-{self.seed}"])


def cells_of(config: StressConfig, seed: int) -> Iterator[CellKey]:
    """All cells of one replicate, references first."""
    for model in map(label_of, config.model):
        for remedy in config.remedies:
            yield CellKey(model, DENSE, remedy=remedy, seed=seed)
        yield CellKey(model, GRADUAL, seed=seed)
        for strategy in config.strategies:
            for level in config.levels:
                for remedy in config.remedies:
                    for draw in range(draws_of(config, strategy)):
                        yield CellKey(model, strategy, level, draw, remedy, seed)


def draws_of(config: StressConfig, strategy: str) -> int:
    """How many networks a strategy has in one replicate: several where chance alone chooses."""
    return config.draws if strategy == "random" else 1


@dataclass(frozen=True)
class Moment:
    """One unit in the life of a cell: what is done, in which cycle. `task` is the place in the order of tasks."""

    unit: int
    does: str
    prune_cycle: int
    cycle: int
    task: int | None = None


PRUNE, LEARN, LOOK = "prune", "learn", "look"


def life_of(config: StressConfig, tasks: int) -> list[Moment]:
    """Every unit of a cell in order: prune; then in each cycle learn all tasks, and look at what became of it."""
    moments: list[Moment] = []

    def add(does: str, prune_cycle: int, cycle: int, task: int | None = None) -> None:
        moments.append(Moment(len(moments), does, prune_cycle, cycle, task))

    for prune_cycle in range(config.prune_cycles):
        first = prune_cycle * config.cycles
        add(PRUNE, prune_cycle, first)
        for cycle in range(first + 1, first + config.cycles + 1):
            for task in range(tasks):
                add(LEARN, prune_cycle, cycle, task)
            add(LOOK, prune_cycle, cycle)
    return moments
