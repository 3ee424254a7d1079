"""A task is learned: looked at on the way, what else was learned before too, and all tasks at its end."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from tombola.pruning.copies import copy_of
from tombola.runs.rows import Row
from tombola.studies.stress.cells import Moment
from tombola.studies.stress.config import GRADUAL
from tombola.studies.stress.living.cell import LOOKS, Living
from tombola.studies.stress.living.entropy import journal_of
from tombola.studies.stress.living.scoring import end_rows, inside_row, numbers_of, scored
from tombola.studies.stress.living.state import State
from tombola.studies.stress.subjects.curriculum import FEW, next_difficulty
from tombola.training import fit
from tombola.training.completions import Completions, Listener, Mixed
from tombola.training.task import Scored
from tombola.training.trained import Evaluation


def learned(living: Living, moment: Moment, state: State) -> tuple[list[Row], State]:
    """The unit of one phase."""
    name = living.name_at(moment)
    visit = state.visits.get(name, 0) + 1
    phase = Phase(living, moment, state, name, visit)
    began = time.perf_counter()
    with journal_of(living, moment, state, name) as listener:
        phase.run(state.network, listener)
    seconds = time.perf_counter() - began
    state = state.after(phase.steps, phase.tokens, living.config.epochs)
    state.visits = {**state.visits, name: visit}
    columns = living.columns(moment, state)
    tasks = living.curriculum.tasks
    scores = scored(state.network, tasks)
    rows = [{**columns, **row} for row in phase.looks]
    rows += end_rows(columns, tasks, scores, state.start, name, (phase.steps, phase.tokens))
    rows.append(
        {
            **columns,
            "kind": "phase",
            "training": name,
            "visit": visit,
            "steps": phase.steps,
            "phase_epochs": float(living.config.epochs),
            "phase_tokens": phase.tokens,
            "difficulty": phase.difficulty,
            "seconds": seconds,
            "check_held": living.masks(state.network, state).removed_nonzeros(state.network) == 0,
        }
    )
    if visit == 1 and living.meets_again(moment) and living.spec.key.strategy != GRADUAL:
        rows.append({**columns, **phase.alone(state.network)})
    if living.config.adaptive and phase.difficulty is not None:
        level = next_difficulty(name, phase.difficulty, phase.accuracy(state.network))
        state.difficulty = {**state.difficulty, name: level}
    return rows, state


@dataclass
class Phase:
    """One training of a task, and the looks on its way. `looks` are rows without the columns of their unit."""

    living: Living
    moment: Moment
    state: State
    name: str
    visit: int
    looks: list[Row] = field(default_factory=list)

    @property
    def difficulty(self) -> int | None:
        """The level that is learned: that of the task, or what it has become."""
        return self.state.difficulty.get(self.name, self.living.curriculum.difficulty(self.name))

    @functools.cached_property
    def task(self) -> Completions:
        return self.living.curriculum.at(self.name, self.difficulty)

    @property
    def steps(self) -> int:
        return self.living.steps_of(self.task)

    @property
    def tokens(self) -> int:
        """That are met, padding left out."""
        return self.task.tokens_per_epoch * self.living.config.epochs

    def run(self, network: nn.Module, listener: Listener | None = None) -> None:
        """Trains the network in place; a `listener` is told which tokens of a batch are no padding."""
        self.train(network, self._as_met().heard_by(listener), self.visit, self._look(network))

    def alone(self, network: nn.Module) -> Row:
        """The control without interference: a copy learns the task a second time at once, as it would be met again."""
        copy = copy_of(network)
        self.train(copy, self.task, self.visit + 1, None)
        score = self.living.curriculum.tasks[self.name].scores(copy, "validation")
        return {"kind": "alone", "task": self.name, "steps": self.steps, **numbers_of(score)}

    def accuracy(self, network: nn.Module) -> float:
        """On held-out items of the level that was learned."""
        return self.task.first(FEW).scores(network, "validation").accuracy

    def train(self, network: nn.Module, task: Completions, visit: int, look: Any) -> None:
        """Trains a network in place; `look` is told of every evaluation, without one there is only the last."""
        living = self.living
        looks = LOOKS if look is not None else 1
        recipe = living.recipe(f"{living.config.epochs}ep", self.steps, looks)
        seed = living.seed_of("train", self.name, visit)
        fit(network, task.first(FEW), recipe, living.masks(network, self.state), seed, on_evaluation=look)

    def _as_met(self) -> Completions:
        """The task; in the gradual control its items come in slowly among those of the task before."""
        before = self.living.task_before(self.moment)
        if self.living.spec.key.strategy != GRADUAL or before is None:
            return self.task
        return Mixed(
            self.living.curriculum.tasks[before],
            self.task,
            self.steps,
            self.living.seed_of("mixture", self.moment.unit),
        )

    def _look(self, network: nn.Module) -> Any:
        """At the task itself and at all that were learned before it, on a few held-out items."""
        tasks = self.living.curriculum.tasks
        wanted = [name for name in self.living.curriculum.names if name == self.name or name in self.state.visits]
        few = {name: tasks[name].first(FEW) for name in wanted}

        if (
            self.living.spec.key.remedy != "none" and self.moment.task == 0 and self.visit > 1
        ):  # it came after the last look
            self.looks += [
                inside_row({}, name, self.name, score, (0, 0)) for name, score in scored(network, few).items()
            ]
        is_looked_at = self.task is tasks[self.name]  # by the training itself, on the same items
        if is_looked_at:
            few.pop(self.name)

        def look(evaluation: Evaluation, total: int) -> None:
            at = (evaluation.iteration, round(self.tokens * evaluation.iteration / total))
            found = scored(network, few)
            if is_looked_at:
                found[self.name] = Scored(evaluation.loss, evaluation.values, FEW)
            self.looks += [inside_row({}, name, self.name, found[name], at) for name in wanted]

        return look
