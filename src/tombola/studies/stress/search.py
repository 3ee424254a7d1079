"""So many networks are spent where plasticity is best: by a bandit over strategies and levels, and by chance.

Both have equally many, and the k-th network of an arm is the same for both, so that they differ in what they choose
alone. The next arm is a pure function of the rewards so far: a search that was killed goes on to the same end.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import product

from tombola.runs.rows import Row, rows_of
from tombola.runs.seeds import derive_seed
from tombola.studies.stress.cells import CellKey
from tombola.studies.stress.config import StressConfig, label_of

BANDIT, CHANCE = "bandit", "random"
CONTROLLERS = (BANDIT, CHANCE)
Arm = tuple[str, float]
"""A strategy at a level."""
Pulled = Sequence[tuple[Arm, float]]
"""Arms and what they gave, in order."""


def arms_of(config: StressConfig) -> list[Arm]:
    """All arms, in an order of their own for each seed."""
    arms: list[Arm] = list(product(config.strategies, config.levels))
    random.Random(derive_seed(config.seed, "arms")).shuffle(arms)
    return arms


def next_arm(config: StressConfig, controller: str, pulled: Pulled) -> Arm:
    """Which arm a controller pulls next.

    The bandit is UCB1 (Auer, Cesa-Bianchi & Fischer 2002) on rewards scaled to the range met so far: every arm once,
    then the one of the largest mean + sqrt(2 ln n / n_arm).
    """
    arms = arms_of(config)
    if controller == CHANCE:
        return random.Random(derive_seed(config.seed, "pull", len(pulled))).choice(arms)
    if len(pulled) < len(arms):
        return arms[len(pulled)]
    rewards: dict[Arm, list[float]] = defaultdict(list)
    for arm, reward in pulled:
        rewards[arm].append(reward)
    every = [reward for _, reward in pulled]
    low, width = min(every), max(every) - min(every) or 1.0

    def bound(arm: Arm) -> float:
        own = rewards[arm]
        return (sum(own) / len(own) - low) / width + math.sqrt(2 * math.log(len(pulled)) / len(own))

    return max(arms, key=bound)


def cell_of(config: StressConfig, arm: Arm, pulled: Pulled) -> CellKey:
    """The network of the next pull of an arm: a seed of its own for each pull."""
    times = sum(before == arm for before, _ in pulled)
    return CellKey(label_of(config.model[0]), *arm, seed=times)


def reward_of(rows: Sequence[Row], key: CellKey) -> float:
    """The plasticity of a network at its end: minus the nats of its last probe."""
    probes = list(rows_of(rows, kind="probe", of="network", **key.columns))
    return -float(max(probes, key=lambda row: row["unit"])["nats"])


def pulled_of(rows: Sequence[Row], controller: str) -> list[tuple[Arm, float]]:
    """What a controller has pulled so far."""
    own = sorted(rows_of(rows, kind="pull", controller=controller), key=lambda row: row["pull"])
    return [((row["strategy"], row["level"]), row["reward"]) for row in own]


def search(
    config: StressConfig, rows: Sequence[Row], live: Callable[[CellKey], None], append: Callable[[list[Row]], object]
) -> None:
    """Pulls until both controllers have had their networks; `rows` is the table that `append` adds to."""
    assert config.search is not None
    for controller in CONTROLLERS:
        while len(pulled := pulled_of(rows, controller)) < config.search:
            key = cell_of(config, next_arm(config, controller, pulled), pulled)
            live(key)
            place = {"unit": None, "controller": controller, "pull": len(pulled)}
            append([{"kind": "pull", **key.columns, **place, "reward": reward_of(rows, key)}])


def is_spent(config: StressConfig, rows: Sequence[Row]) -> bool:
    """Whether a search is over."""
    return all(len(pulled_of(rows, controller)) >= (config.search or 0) for controller in CONTROLLERS)
