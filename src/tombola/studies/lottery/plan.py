"""The rounds of a study as arithmetic: how many weights each must leave, before anything is trained.

The run is held to this plan; it is computed apart from `prune`, so that one checks the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tombola.errors import ConfigError
from tombola.pruning import PerLayerRates, schedules
from tombola.studies.lottery.config import PruningConfig

MOST_ROUNDS = 1000


@dataclass(frozen=True)
class Round:
    """Round `index` keeps exactly `kept` of `total` weights; `sparsity` is None for per-layer rates."""

    index: int
    kept: int
    total: int
    sparsity: float | None

    @property
    def density(self) -> float:
        return self.kept / self.total


def plan_rounds(config: PruningConfig, layer_sizes: Mapping[str, int]) -> list[Round]:
    """All rounds, the dense round 0 first. `layer_sizes` counts the weights by parameter name.

    Raises ConfigError when the rounds cannot reach their target.
    """
    total = sum(layer_sizes.values())
    dense = Round(0, total, total, 0.0)
    if config.distribution == "rates":
        return [dense, *_by_layer_rates(config, dict(layer_sizes), total)]
    sparsities = _sparsities(config)
    rounds = [Round(i, total - round(s * total), total, s) for i, s in enumerate(sparsities, start=1)]
    for before, after in zip([dense, *rounds], rounds, strict=False):
        if after.kept >= before.kept:
            raise ConfigError(
                f"pruning: round {after.index} would remove nothing from the {before.kept} weights left; ask for "
                "fewer rounds or a higher rate"
            )
        if after.kept < config.min_keep * len(layer_sizes):
            raise ConfigError(
                f"pruning: round {after.index} would leave {after.kept} weights, too few for "
                f"{len(layer_sizes)} layers of at least {config.min_keep}; ask for a higher density"
            )
    return [dense, *rounds]


def rates_of(config: PruningConfig) -> PerLayerRates:
    """The per-layer distribution of a config whose distribution is `rates`."""
    assert config.rate is not None
    return PerLayerRates(config.rate, config.layer_rates)


def _sparsities(config: PruningConfig) -> list[float]:
    if config.densities:
        return [1 - density for density in config.densities]
    assert config.target_density is not None
    if config.schedule is not None:
        assert config.rounds is not None
        return schedules.get(config.schedule)(1 - config.target_density, config.rounds)
    assert config.rate is not None
    sparsities: list[float] = []
    while not sparsities or 1 - sparsities[-1] > config.target_density * (1 + 1e-12):
        sparsities.append(1 - (1 - config.rate) ** (len(sparsities) + 1))
        if len(sparsities) > MOST_ROUNDS:
            raise ConfigError(f"pruning: more than {MOST_ROUNDS} rounds to the target; raise `rate`")
    return sparsities


def _by_layer_rates(config: PruningConfig, alive: dict[str, int], total: int) -> list[Round]:
    assert config.target_density is not None
    rates = rates_of(config)
    rounds: list[Round] = []
    while not rounds or rounds[-1].density > config.target_density:
        lost = rates.counts(alive)
        alive = {name: count - lost[name] for name, count in alive.items()}
        dying = [name for name, count in alive.items() if lost[name] and count < config.min_keep]
        if not any(lost.values()) or dying or len(rounds) >= MOST_ROUNDS:
            why = f"the layer {dying[0]} would die" if dying else "a round would remove nothing"
            raise ConfigError(
                f"pruning: these rates do not reach target_density {config.target_density:g}: in round "
                f"{len(rounds) + 1} {why}; change the rates or the target"
            )
        rounds.append(Round(len(rounds) + 1, sum(alive.values()), total, None))
    return rounds
