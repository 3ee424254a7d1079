"""What a stress study came to: a pure function of its rows. As data it is in `result`, for programs in `programs`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tombola.runs.rows import Row, rows_of
from tombola.studies.stress.metrics import Value, known, mean_of, null
from tombola.studies.stress.outcome.estimates import BySeed
from tombola.studies.stress.outcome.groups import (
    DENSE,
    RANDOM,
    UNTREATED,
    Group,
    GroupKey,
    differences,
    group_of,
    grouped,
)
from tombola.studies.stress.outcome.lives import lives_of
from tombola.studies.stress.outcome.measured import measured
from tombola.studies.stress.outcome.programs import as_json, experiment_summaries
from tombola.studies.stress.outcome.result import Stress

__all__ = ["Stress", "as_json", "experiment_summaries", "summarise"]

Floors = Mapping[tuple[str, int], Mapping[str, Mapping[str, Row]]]
"""Floor rows by model and seed, what they are of, and task."""


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
    return Stress(folder, config, rows, lives, held, _floor_values(floors))


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


def _floor_values(floors: Floors) -> dict[str, dict[str, dict[str, BySeed]]]:
    found: dict[str, dict[str, dict[str, BySeed]]] = {}
    for model in dict.fromkeys(model for model, _ in floors):
        seeds = {seed: by for (name, seed), by in floors.items() if name == model}
        names = dict.fromkeys(of for by in seeds.values() for of in by)
        found[model] = {
            of: {
                column: {seed: _mean(by.get(of, {}), column) for seed, by in sorted(seeds.items())}
                for column in ("nats", "accuracy")
            }
            for of in names
        }
    return found


def _mean(tasks: Mapping[str, Row], column: str) -> Value:
    values = [row.get(column) for row in tasks.values()]
    return mean_of((null("not measured") if value is None else known(value) for value in values), "not measured")
