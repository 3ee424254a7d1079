"""The outcome of a stress study as everybody reads it: groups of networks, the lives that they are of, and floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tombola.runs.rows import Row
from tombola.studies.stress.outcome.estimates import BySeed, over_seeds
from tombola.studies.stress.outcome.groups import DENSE, UNTREATED, Group, GroupKey, Metrics
from tombola.studies.stress.outcome.lives import Life


@dataclass(frozen=True, eq=False)
class Stress:
    """All groups in the order of their cells, and the lives that they are of.

    `floor_values[model][of]` are the scores (`nats`, `accuracy`; means over tasks) of all heads off and of an untrained
    network, by seed.
    """

    folder: Path
    config: Any
    rows: Sequence[Row]
    lives: tuple[Life, ...]
    groups: Mapping[GroupKey, Group]
    floor_values: Mapping[str, Mapping[str, Mapping[str, BySeed]]]

    @cached_property
    def floors(self) -> Mapping[str, Mapping[str, Metrics]]:
        """The floors over seeds."""
        return {
            model: {of: {name: over_seeds(seeds) for name, seeds in columns.items()} for of, columns in floors.items()}
            for model, floors in self.floor_values.items()
        }

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
