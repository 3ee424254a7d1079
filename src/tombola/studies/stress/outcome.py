"""What a stress study came to: a pure function of its rows, and the same for a program."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tombola.runs.rows import Row, rows_of
from tombola.studies.stress.estimates import Estimate, by_seed, over_seeds
from tombola.studies.stress.groups import (
    DENSE,
    RANDOM,
    UNTREATED,
    Group,
    GroupKey,
    Metrics,
    differences,
    group_of,
    grouped,
)
from tombola.studies.stress.lives import Life, lives_of
from tombola.studies.stress.measured import measured
from tombola.studies.stress.metrics import Value, known, mean_of, null

Floors = Mapping[tuple[str, int], Mapping[str, Mapping[str, Row]]]
"""Floor rows by model and seed, what they are of, and task."""


@dataclass(frozen=True, eq=False)
class Stress:
    """All groups in the order of their cells, and the lives that they are of.

    `floors[model][of]` are the scores (`nats`, `accuracy`; means over tasks) of all heads off and of an untrained
    network.
    """

    folder: Path
    config: Any
    rows: Sequence[Row]
    lives: tuple[Life, ...]
    groups: Mapping[GroupKey, Group]
    floors: Mapping[str, Mapping[str, Metrics]]

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Of which there are lives, in order."""
        return tuple(dict.fromkeys(key.model for key in self.groups))

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds that any life has."""
        return tuple(sorted({life.key.seed for life in self.lives}))

    @property
    def strategies(self) -> tuple[str, ...]:
        """Those that remove something, in order."""
        return tuple(dict.fromkeys(key.strategy for key in self.groups if not key.is_reference))

    @property
    def levels(self) -> tuple[float, ...]:
        """Fractions asked of the strategies, from the lowest."""
        return tuple(sorted({key.level for key in self.groups if not key.is_reference}))

    @property
    def remedies(self) -> tuple[str, ...]:
        """In order, `none` among them where it was run."""
        return tuple(dict.fromkeys(key.remedy for key in self.groups))

    def group(self, model: str, strategy: str, level: float = 0.0, remedy: str = UNTREATED) -> Group | None:
        """One group, None where it was not run."""
        return self.groups.get(GroupKey(model, strategy, level, remedy))

    def dense(self, model: str) -> Group | None:
        """The reference: nothing removed, no remedy."""
        return self.group(model, DENSE)

    def name(self, key: GroupKey) -> str:
        """`entropy_0.3`; where there are several models `tiny/entropy_0.3`."""
        return key.name if len(self.models) == 1 else f"{key.model}/{key.name}"


def summarise(folder: Path, config: Any, rows: Sequence[Row]) -> Stress:
    """What the rows of complete cells come to.

    Args:
        folder: Where the study lies.
        config: Its `StressConfig`.
        rows: Its rows, in the order in which they were written.
    """
    floors = _floors(rows)
    plain = lives_of(rows)
    dense = {
        (life.key.model, life.key.seed): life
        for life in plain
        if (life.key.strategy, life.key.remedy) == (DENSE, UNTREATED)
    }
    lives = tuple(
        measured(life, dense.get(place := (life.key.model, life.key.seed)), floors.get(place, {})) for life in plain
    )
    groups = {key: group_of(key, found) for key, found in grouped(lives).items()}
    held = {key: _held_against(group, groups) for key, group in groups.items()}
    return Stress(folder, config, rows, lives, held, _floor_estimates(floors))


def _held_against(group: Group, groups: Mapping[GroupKey, Group]) -> Group:
    """With its differences. The dense network of the same remedy is the reference, or that without one."""
    key = group.key
    dense = groups.get(key._replace(strategy=DENSE, level=0.0)) or groups.get(
        GroupKey(key.model, DENSE, 0.0, UNTREATED)
    )
    random = None if key.is_reference else groups.get(key._replace(strategy=RANDOM))
    untreated = groups.get(key._replace(remedy=UNTREATED))
    return replace(
        group,
        minus_dense=differences(group, dense, "dense network"),
        minus_random={} if key.is_reference else differences(group, random, "random pruning at this level"),
        minus_untreated={} if key.remedy == UNTREATED else differences(group, untreated, "network without a remedy"),
    )


def _floors(rows: Sequence[Row]) -> dict[tuple[str, int], dict[str, dict[str, Row]]]:
    found: dict[tuple[str, int], dict[str, dict[str, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows_of(rows, kind="floor"):
        found[row["model"], row["seed"]][row["of"]][row["task"]] = row
    return found


def _floor_estimates(floors: Floors) -> dict[str, dict[str, dict[str, Estimate]]]:
    found: dict[str, dict[str, dict[str, Estimate]]] = {}
    for model in dict.fromkeys(model for model, _ in floors):
        seeds = {seed: by for (name, seed), by in floors.items() if name == model}
        names = dict.fromkeys(of for by in seeds.values() for of in by)
        found[model] = {
            of: {
                column: over_seeds(by_seed((seed, _mean(by.get(of, {}), column)) for seed, by in seeds.items()))
                for column in ("nats", "accuracy")
            }
            for of in names
        }
    return found


def _mean(tasks: Mapping[str, Row], column: str) -> Value:
    values = [row.get(column) for row in tasks.values()]
    return mean_of((null("not measured") if value is None else known(value) for value in values), "not measured")
