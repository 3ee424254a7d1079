"""A network's life as arrays, read from the rows of its cell; what is measured of it is in `measured`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from tombola.runs.rows import Row
from tombola.studies.stress.cells import KEY, CellKey
from tombola.studies.stress.metrics import Array, Curve, Value


class Moment(NamedTuple):
    """A cycle of tasks, counted over the whole life; just after a pruning it is the cycle before."""

    prune_cycle: int
    cycle: int


@dataclass(frozen=True)
class Phase:
    """The learning of one task; `number` counts from 1 over the whole life, `visit` from 1 for each task."""

    number: int
    training: str
    visit: int
    moment: Moment
    steps: int
    tokens: int
    difficulty: int | None


@dataclass(frozen=True)
class Scores:
    """Held-out scores of all tasks in one state of the network, (J,) each, more is better, NaN where not taken.

    `nats` and `few` (the same on the few items of looks inside phases) are −nats a target token; `noise` is the
    standard error of the change since just after the first pruning, paired over items.
    """

    nats: Array
    few: Array
    accuracy: Array
    noise: Array


@dataclass(frozen=True, eq=False)
class Life:
    """One network's life. Arrays have a row for each phase 0..P (0: just after the first pruning) and a column a task.

    `pruned[c]` is the state just after pruning c. `metrics` and what follows is filled in by `measured`.
    """

    key: CellKey
    tasks: tuple[str, ...]
    """In the order in which they were first learned; then those that were only scored."""
    phases: tuple[Phase, ...]
    after: tuple[Scores, ...]
    pruned: tuple[Scores, ...]
    inside: Mapping[tuple[int, str], Curve]
    """Looks within phase p at a task, the state in which the phase begins included."""
    rows: Mapping[str, Sequence[Row]]
    """All rows of the cell by kind, in order of time."""
    metrics: Mapping[str, Value] = field(default_factory=dict)
    by_cycle: Mapping[Moment, Mapping[str, Value]] = field(default_factory=dict)
    by_task: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    by_visit: Mapping[str, Mapping[tuple[str, int], Value]] = field(default_factory=dict)
    """Metrics of visits, by task and number of the visit."""
    dead: bool = False

    @cached_property
    def scores(self) -> Array:
        """−nats a target token, (P+1, J)."""
        return np.stack([state.nats for state in self.after])

    @cached_property
    def accuracies(self) -> Array:
        """Fraction of target tokens, (P+1, J)."""
        return np.stack([state.accuracy for state in self.after])

    @cached_property
    def noise(self) -> Array:
        """Standard error of the change since just after the first pruning, (P+1, J)."""
        return np.stack([state.noise for state in self.after])

    @cached_property
    def visits(self) -> list[list[int]]:
        """The phases in which each task was trained, (J) lists."""
        return [[phase.number for phase in self.phases if phase.training == task] for task in self.tasks]

    @cached_property
    def moments(self) -> tuple[Moment, ...]:
        """The cycles in which something was learned, in order of time."""
        return tuple(dict.fromkeys(phase.moment for phase in self.phases))

    @cached_property
    def last_phase(self) -> dict[int, int]:
        """The last phase of each prune cycle."""
        return {phase.moment.prune_cycle: phase.number for phase in self.phases}

    def before(self, phase: Phase) -> Scores:
        """The state in which a phase begins: what the phase before left, or what a pruning left of it."""
        first = phase.number == 1 or self.phases[phase.number - 2].moment.prune_cycle != phase.moment.prune_cycle
        return self.pruned[phase.moment.prune_cycle] if first else self.after[phase.number - 1]


def lives_of(rows: Iterable[Row]) -> list[Life]:
    """The lives of all cells that were pruned and scored, in the order in which the rows first name them."""
    cells: dict[CellKey, list[Row]] = defaultdict(list)
    for row in rows:
        if row["kind"] not in NOT_OF_A_LIFE:
            cells[key_of(row)].append(row)
    return [life for key, found in cells.items() if (life := _life(key, found)) is not None]


NOT_OF_A_LIFE = ("floor", "pull")


def key_of(row: Row) -> CellKey:
    """The cell that a row is of."""
    return CellKey(*(row[name] for name in KEY))


def _life(key: CellKey, rows: Sequence[Row]) -> Life | None:
    kinds: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["unit"]):  # stable: rows of a unit stay in order
        kinds[row["kind"]].append(row)
    phases = tuple(_phase(number, row) for number, row in enumerate(kinds["phase"], start=1))
    ends = [row for row in kinds["score"] if row["look"] == "end"]
    learned = dict.fromkeys(phase.training for phase in phases)
    tasks = tuple(learned | dict.fromkeys(sorted({row["task"] for row in ends})))
    states: dict[int, list[Row]] = defaultdict(list)
    for row in ends:
        states[row["unit"]].append(row)
    pruned = tuple(_scores(found, tasks) for found in states.values() if found[0]["training"] is None)
    after = {found[0]["phase"]: _scores(found, tasks) for found in states.values() if found[0]["training"] is not None}
    if not pruned:
        return None
    nothing = _scores([], tasks)
    states_after = (pruned[0], *(after.get(phase.number, nothing) for phase in phases))
    life = Life(key, tasks, phases, states_after, pruned, {}, kinds)
    return Life(key, tasks, phases, states_after, pruned, _curves(life), kinds)


def _phase(number: int, row: Row) -> Phase:
    moment = Moment(row["prune_cycle"], row["cycle"])
    return Phase(
        number, row["training"], row["visit"], moment, row["steps"], row["phase_tokens"], row.get("difficulty")
    )


def _scores(rows: Sequence[Row], tasks: Sequence[str]) -> Scores:
    found = {row["task"]: row for row in rows}

    def column(name: str, sign: int = 1) -> Array:
        values = [found.get(task, {}).get(name) for task in tasks]
        return np.array([np.nan if value is None else sign * value for value in values], dtype=np.float64)

    noise = column("change_se")
    if rows and rows[0]["phase"] == 0:  # what changes are counted from
        noise = np.where(np.isfinite(column("nats")), 0.0, np.nan)
    return Scores(column("nats", -1), column("few_nats", -1), column("accuracy"), noise)


def _curves(life: Life) -> dict[tuple[int, str], Curve]:
    looks: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for row in life.rows.get("score", ()):
        if row["look"] == "inside":
            looks[row["phase"], row["task"]].append(row)
    curves = {}
    for phase in life.phases:
        start, end = life.before(phase).few, life.after[phase.number].few
        for j, task in enumerate(life.tasks):
            points = {0: (0, float(start[j]))}
            points |= {
                row["step_in_phase"]: (row["tokens_in_phase"], -row["nats"]) for row in looks[phase.number, task]
            }
            if len(points) > 1 or task == phase.training:
                points.setdefault(phase.steps, (phase.tokens, float(end[j])))
                steps = sorted(points)
                tokens, scores = zip(*(points[step] for step in steps), strict=True)
                curves[phase.number, task] = Curve(
                    *(np.array(part, dtype=np.float64) for part in (steps, tokens, scores))
                )
    return curves
