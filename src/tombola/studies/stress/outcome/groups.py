"""Networks that differ in seed and draw alone, as one: every metric over seeds, and against what it must be held to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tombola.studies.stress.metrics import Value, known, mean_of, null
from tombola.studies.stress.outcome.estimates import Estimate, by_seed, minus, over_seeds
from tombola.studies.stress.outcome.lives import Life, Moment
from tombola.studies.stress.outcome.measured import FUNCTION, OF_VISITS
from tombola.studies.stress.outcome.plasticity import Plasticity, plasticity_of
from tombola.studies.stress.outcome.quantities import QUANTITIES

DENSE, GRADUAL, RANDOM, UNTREATED = "dense", "gradual", "random", "none"
REFERENCES = (DENSE, GRADUAL)
Metrics = Mapping[str, Estimate]
Visited = tuple[str, int]
"""A task, and which of its visits."""


class GroupKey(NamedTuple):
    """A strategy at a level of one model, with its remedy."""

    model: str
    strategy: str
    level: float
    remedy: str

    @property
    def name(self) -> str:
        """`entropy_0.3`, `entropy_0.3+shrink_and_perturb`, `dense`."""
        plain = self.strategy if self.strategy in REFERENCES else f"{self.strategy}_{self.level:g}"
        return plain if self.remedy == UNTREATED else f"{plain}+{self.remedy}"

    @property
    def is_reference(self) -> bool:
        """Whether nothing is removed."""
        return self.strategy in REFERENCES


@dataclass(frozen=True, eq=False)
class Group:
    """What all lives of one key came to. All means have a 95 % t interval over seeds.

    `metrics` has every key of `quantities`, `by_cycle` and `by_task` those that go by cycle or task. `minus_dense`,
    `minus_random` (the same level and remedy) and `minus_untreated` (no remedy) are differences paired by seed, empty
    for what is itself the reference. `floors` are the function floors: all heads off, an independent network.
    """

    key: GroupKey
    lives: tuple[Life, ...]
    metrics: Metrics
    by_cycle: Mapping[Moment, Metrics]
    by_task: Mapping[str, Metrics]
    plasticity: Plasticity
    floors: Mapping[str, Metrics]
    minus_dense: Metrics = field(default_factory=dict)
    minus_random: Metrics = field(default_factory=dict)
    minus_untreated: Metrics = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that have a life here, in order."""
        return tuple(sorted({life.key.seed for life in self.lives}))

    @property
    def draws(self) -> int:
        """The most networks that any seed has."""
        return max(sum(life.key.seed == seed for life in self.lives) for seed in self.seeds)

    @property
    def dead(self) -> int:
        """Lives that were dead after pruning and learned nothing."""
        return sum(life.dead for life in self.lives)

    def by_seed(self, metric: str) -> dict[int, Value]:
        """A metric by seed, the draws of a seed averaged."""
        return by_seed((life.key.seed, life.metrics[metric]) for life in self.lives)

    def visits_by_seed(self, metric: str) -> dict[int, dict[Visited, Value]]:
        """A metric of visits by seed, task and number of the visit, averaged over draws."""
        found: dict[int, dict[Visited, list[Value]]] = defaultdict(lambda: defaultdict(list))
        for life in self.lives:
            for visit, value in life.by_visit.get(metric, {}).items():
                found[life.key.seed][visit].append(value)
        return {seed: {visit: mean_of(draws) for visit, draws in visits.items()} for seed, visits in found.items()}

    def task_by_seed(self, task: str, metric: str) -> dict[int, Value]:
        """A metric of one task by seed."""
        known_here = [life for life in self.lives if task in life.by_task]
        return by_seed((life.key.seed, life.by_task[task].get(metric, null("not measured"))) for life in known_here)


def grouped(lives: Iterable[Life]) -> dict[GroupKey, tuple[Life, ...]]:
    """Lives by model, strategy, level and remedy, in the order given."""
    found: dict[GroupKey, list[Life]] = defaultdict(list)
    for life in lives:
        found[GroupKey(life.key.model, life.key.strategy, life.key.level, life.key.remedy)].append(life)
    return {key: tuple(each) for key, each in found.items()}


def group_of(key: GroupKey, lives: Sequence[Life]) -> Group:
    """The group without its differences."""
    moments = sorted({moment for life in lives for moment in life.by_cycle})
    tasks = {task for life in lives for task in life.by_task}
    return Group(
        key,
        tuple(lives),
        {name: over_seeds(by_seed((life.key.seed, life.metrics[name]) for life in lives)) for name in QUANTITIES},
        {moment: _each([(life.key.seed, life.by_cycle.get(moment, {})) for life in lives]) for moment in moments},
        {task: _each([(life.key.seed, life.by_task.get(task, {})) for life in lives]) for task in sorted(tasks)},
        plasticity_of(lives),
        {of: _function_floor(lives, of) for of in ("all_off", "independent")},
    )


def _each(parts: Sequence[tuple[int, Mapping[str, Value]]]) -> dict[str, Estimate]:
    """Every metric that a part (a cycle, a task) of any life has, over the seeds beside the parts."""
    names = dict.fromkeys(name for _, found in parts for name in found)
    return {name: over_seeds(by_seed((seed, found[name]) for seed, found in parts if name in found)) for name in names}


def _function_floor(lives: Sequence[Life], of: str) -> dict[str, Estimate]:
    rows = [(life.key.seed, row) for life in lives for row in life.rows.get("function", ()) if row["of"] == of]
    return {
        name: over_seeds(by_seed((seed, _value(row.get(name))) for seed, row in rows), "not measured")
        for name in FUNCTION
    }


def _value(number: float | None) -> Value:
    return null("not measured") if number is None else known(number)


def differences(ours: Group, theirs: Group | None, of: str) -> dict[str, Estimate]:
    """Every metric of ours minus theirs, paired by seed; `of` names theirs where they are not there."""
    if theirs is ours:
        return {}
    if theirs is None:
        return {name: Estimate(None, reason=f"no {of}") for name in QUANTITIES}
    return {name: difference_of(ours, theirs, name, of) for name in QUANTITIES}


def difference_of(ours: Group, theirs: Group, metric: str, of: str = "the other") -> Estimate:
    """The same of one metric; see `difference_by_seed`."""
    return over_seeds(difference_by_seed(ours, theirs, metric), f"no seed has both this and {of}")


def difference_by_seed(ours: Group, theirs: Group, metric: str) -> dict[int, Value]:
    """Ours minus theirs, paired by seed; metrics of visits are paired visit by visit, over those that both have.

    So a network that reaches few targets is not held, by the easy ones, against one that reaches them all.
    """
    if metric not in OF_VISITS:
        own, other = ours.by_seed(metric), theirs.by_seed(metric)
        return {seed: minus(own[seed], other[seed]) for seed in sorted(own.keys() & other.keys())}
    mine, others = ours.visits_by_seed(metric), theirs.visits_by_seed(metric)
    return {
        seed: mean_of([minus(mine[seed][visit], others[seed][visit]) for visit in mine[seed] if visit in others[seed]])
        for seed in sorted(mine.keys() & others.keys())
    }
