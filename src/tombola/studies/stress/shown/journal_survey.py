"""What an entropy journal comes to, gathered in one pass: by head and cycle, and around every switch of tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from tombola.reports.intervals import Estimate, estimate
from tombola.studies.stress.shown.journal import Course, Entry, Head, OneLife, read_journal

Cycle = tuple[int, str]


@dataclass
class Mean:
    """A running mean."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        """Takes a value."""
        self.total += value
        self.count += 1

    @property
    def value(self) -> float:
        """The mean; there is one."""
        return self.total / self.count


@dataclass
class At:
    """The mean over heads at one step."""

    step: int
    mean: Mean = field(default_factory=Mean)


@dataclass
class PhaseEnds:
    """The first and the last step of a phase at which entropy was taken, and what was learned in it."""

    task: str | None
    first: At
    last: At

    def add(self, step: int, entropy: float) -> None:
        """Takes a head's entropy."""
        if step > self.last.step:
            self.last = At(step)
        for end in (self.first, self.last):
            if end.step == step:
                end.mean.add(entropy)


@dataclass(frozen=True)
class Switch:
    """What the mean entropy over heads did from the last step of a task to the first one of the next."""

    before: str
    after: str
    change: float


@dataclass
class LifeSurvey:
    """One network's life: by head the mean of each cycle (in order of time) while the head was kept."""

    heads: dict[Head, dict[Cycle, Mean]] = field(default_factory=lambda: defaultdict(dict))
    cycles: dict[Cycle, Mean] = field(default_factory=dict)
    phases: dict[int, PhaseEnds] = field(default_factory=dict)
    removed: set[Head] = field(default_factory=set)
    steps: int = 0

    def add(self, entry: Entry) -> None:
        """Takes an entry."""
        self.steps = max(self.steps, entry.step)
        by_cycle = self.heads[entry.head]
        if not entry.kept:
            self.removed.add(entry.head)
            return
        self.removed.discard(entry.head)
        if entry.entropy is None:
            return
        cycle = (entry.cycle, entry.cycle_name)
        by_cycle.setdefault(cycle, Mean()).add(entry.entropy)
        self.cycles.setdefault(cycle, Mean()).add(entry.entropy)
        if entry.phase not in self.phases:
            self.phases[entry.phase] = PhaseEnds(entry.task, At(entry.step), At(entry.step))
        self.phases[entry.phase].add(entry.step, entry.entropy)

    @property
    def switches(self) -> list[Switch]:
        """Between neighbouring phases of different tasks."""
        ordered = [self.phases[number] for number in sorted(self.phases)]
        return [
            Switch(one.task, other.task, other.first.mean.value - one.last.mean.value)
            for one, other in pairwise(ordered)
            if one.task is not None and other.task is not None and one.task != other.task
        ]

    def kept(self) -> dict[Head, tuple[float, float]]:
        """Of every head that is kept at the end: its mean in its first cycle, and in its last one."""
        found = {}
        for head, by_cycle in self.heads.items():
            if head not in self.removed and by_cycle:
                means = [mean.value for mean in by_cycle.values()]
                found[head] = (means[0], means[-1])
        return found


@dataclass(frozen=True)
class HeadSummary:
    """A head over lives in which it is kept at the end: entropy in its first and last cycle, and the change."""

    head: Head
    first: Estimate
    last: Estimate
    change: Estimate
    lives: int


@dataclass(frozen=True)
class Survey:
    """All lives of one model and remedy in a journal; entropies are fractions of their maximum."""

    model: str
    remedy: str
    lives: Mapping[OneLife, LifeSurvey]
    entries: int

    @property
    def heads(self) -> list[Head]:
        """Every head that is in the journal, in order."""
        return sorted({head for life in self.lives.values() for head in life.heads})

    @property
    def seeds(self) -> list[int]:
        """The replicates; draws of one seed are averaged before anything is counted."""
        return sorted({life.seed for life in self.lives})

    @property
    def cycles(self) -> int:
        """The most cycles of any life."""
        return max(len(life.cycles) for life in self.lives.values())

    @property
    def steps(self) -> int:
        """The last global step of the longest life."""
        return max(life.steps for life in self.lives.values())

    def over_seeds(self, values: Mapping[OneLife, float]) -> Estimate | None:
        """The mean over seeds of the means over draws; None without a value."""
        by_seed: dict[int, list[float]] = defaultdict(list)
        for life, value in values.items():
            by_seed[life.seed].append(value)
        return estimate([float(np.mean(found)) for _, found in sorted(by_seed.items())]) if by_seed else None

    @property
    def summaries(self) -> list[HeadSummary]:
        """Every head that some life keeps to its end."""
        kept = {life: survey.kept() for life, survey in self.lives.items()}
        found = []
        for head in self.heads:
            ends = {life: heads[head] for life, heads in kept.items() if head in heads}
            first = self.over_seeds({life: one for life, (one, _) in ends.items()})
            last = self.over_seeds({life: two for life, (_, two) in ends.items()})
            change = self.over_seeds({life: two - one for life, (one, two) in ends.items()})
            if first is not None and last is not None and change is not None:
                found.append(HeadSummary(head, first, last, change, len(ends)))
        return found

    @property
    def drift(self) -> Estimate | None:
        """Change of the mean over heads kept to the end, from the first cycle to the last; None with one cycle."""
        if self.cycles < 2:
            return None
        changes = {}
        for life, survey in self.lives.items():
            if ends := list(survey.kept().values()):
                changes[life] = float(np.mean([last - first for first, last in ends]))
        return self.over_seeds(changes)

    def mean_of(self, which: int) -> Estimate | None:
        """The mean entropy over heads kept to the end in the first (0) or last (1) cycle."""
        return self.over_seeds(
            {
                life: float(np.mean([ends[which] for ends in kept.values()]))
                for life, survey in self.lives.items()
                if (kept := survey.kept())
            }
        )

    @property
    def removed(self) -> dict[Head, int]:
        """Heads that are gone at the end, each with the number of lives in which it is."""
        found: dict[Head, int] = defaultdict(int)
        for survey in self.lives.values():
            for head in sorted(survey.removed):
                found[head] += 1
        return dict(sorted(found.items()))

    @property
    def switches(self) -> list[Switch]:
        """Of all lives."""
        return [switch for survey in self.lives.values() for switch in survey.switches]


@dataclass
class Journal:
    """All that is shown of a journal: its surveys, and the course of every head in the life that comes first."""

    surveys: list[Survey]
    first: OneLife | None
    courses: dict[Head, Course]


def gathered(path: Path) -> Journal:
    """A journal read once, line by line.

    Args:
        path: an `entropy_journal.jsonl`.

    Returns:
        Surveys model by model and remedy by remedy, in the order in which entries name them: none for an empty file.

    Raises:
        RunFolderError: a line is damaged.
        StorageError: the file cannot be read.
    """
    groups: dict[tuple[str, str], dict[OneLife, LifeSurvey]] = defaultdict(dict)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    first: OneLife | None = None
    courses: dict[Head, Course] = defaultdict(Course)
    for entry in read_journal(path):
        of = (entry.life.model, entry.life.remedy)
        lives = groups[of]
        if entry.life not in lives:
            lives[entry.life] = LifeSurvey()
        lives[entry.life].add(entry)
        counts[of] += 1
        first = first or entry.life
        if entry.life == first:
            courses[entry.head].add(entry)
    surveys = [Survey(*of, lives, counts[of]) for of, lives in groups.items()]
    return Journal(surveys, first, dict(sorted(courses.items())))


def largest(switches: Sequence[Switch]) -> Switch:
    """The switch at which entropy moved most; there is one."""
    return max(switches, key=lambda switch: abs(switch.change))
