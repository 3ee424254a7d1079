"""What one visit to a task came to: what was gained, what of it was lost again, and how fast it was learned."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tombola.studies.stress.metrics import (
    Value,
    area,
    difference,
    halfway,
    known,
    mean_of,
    normalised_forgetting,
    null,
    reached,
    recovery,
    savings,
    stability_gap,
)
from tombola.studies.stress.outcome.lives import Life, Phase

FIRST = "a first visit"
NO_DENSE = "no dense network of this model and seed"


@dataclass(frozen=True)
class Visit:
    """The learning of one task in one phase; all values by their keys in `quantities`."""

    phase: Phase
    task: str
    values: dict[str, Value]


def visits_of(life: Life, dense: Life | None) -> list[Visit]:
    """Every visit of a life in order; `dense` is the reference of the same model and seed, which sets the targets."""
    return [Visit(phase, phase.training, dict(_values(life, phase, dense))) for phase in life.phases]


def _values(life: Life, phase: Phase, dense: Life | None) -> Iterator[tuple[str, Value]]:
    j = life.tasks.index(phase.training)
    if phase.visit == 1:
        yield "gain", known(life.scores[phase.number, j] - life.scores[0, j])
        yield from _adaptation(life, phase, dense)
    else:
        yield from _relearning(life, phase, j)
    forgotten = _forgetting(life, phase, j)
    if forgotten is not None:
        yield "avg_forgetting_rate", forgotten
    curve = life.inside[phase.number, phase.training]
    own = area(curve)
    yield "learning_area", own
    yield "learning_area_vs_dense", _against(own, dense, phase)
    yield from _stability(life, phase)


def _forgetting(life: Life, phase: Phase, j: int) -> Value | None:
    """Until just before the next visit, the next pruning or the end; None where nothing was learned in between."""
    following = [other.number for other in life.phases if other.training == phase.training]
    following = [number for number in following if number > phase.number]
    until = min([life.last_phase[phase.moment.prune_cycle], *(number - 1 for number in following)])
    if until <= phase.number:
        return None
    scores = life.scores[:, j]
    return normalised_forgetting(scores[phase.number], scores[until], scores[0], life.noise[phase.number, j])


def _relearning(life: Life, phase: Phase, j: int) -> Iterator[tuple[str, Value]]:
    earlier = [number for number in life.visits[j] if number < phase.number]
    scores, before = life.scores[:, j], life.before(phase)
    if not earlier or not np.isfinite(scores[earlier]).any():
        yield "avg_recovery_rate", null("no earlier visit was scored")
        return
    best = earlier[int(np.nanargmax(scores[earlier]))]
    lost = (before.nats[j], scores[best], math.hypot(life.noise[best, j], before.noise[j]))
    found = recovery(scores[phase.number], *lost)
    yield "avg_recovery_rate", found
    if phase.visit == 2:
        yield "recovery_second", found
        alone = _alone(life, phase.training, lost)
        yield "recovery_alone", alone
        yield "recovery_minus_alone", difference(found, alone)
    first = life.inside.get((earlier[0], phase.training))
    if first is not None:
        learned = known_gain(life, earlier[0], j)
        yield "savings", savings(first, life.inside[phase.number, phase.training]) if learned.number else learned


def _alone(life: Life, task: str, lost: tuple[float, float, float]) -> Value:
    rows = [row for row in life.rows.get("alone", ()) if row["task"] == task]
    return recovery(-rows[0]["nats"], *lost) if rows else null("the control was not run")


def known_gain(life: Life, number: int, j: int) -> Value:
    """What a visit gained over the score just after pruning; null where that is within noise."""
    scores, noise = life.scores[:, j], life.noise[number, j]
    above = normalised_forgetting(scores[number], scores[number], scores[0], noise)
    return above if above.number is None else known(scores[number] - scores[0])


def _adaptation(life: Life, phase: Phase, dense: Life | None) -> Iterator[tuple[str, Value]]:
    target = _target(dense, phase.training)
    if isinstance(target, Value):
        yield from ((name, target) for name in ("adaptation_steps", "adaptation_tokens", "target_reached"))
        return
    curve = life.inside[phase.number, phase.training]
    steps = reached(target, curve.steps, curve.scores)
    yield "adaptation_steps", steps
    yield "adaptation_tokens", reached(target, curve.tokens, curve.scores, "tokens")
    measured = steps.number is not None or (steps.reason or "").startswith("not reached")
    yield "target_reached", Value(float(steps.number is not None)) if measured else steps


def _target(dense: Life | None, task: str) -> float | Value:
    """Halfway between the dense network's scores before and after it first learned the task, on the few items."""
    visited = dense.visits[dense.tasks.index(task)] if dense is not None and task in dense.tasks else []
    if dense is None or not visited:
        return null(NO_DENSE)
    gain = known_gain(dense, visited[0], dense.tasks.index(task))
    curve = dense.inside[visited[0], task]
    if not np.isfinite(curve.scores[[0, -1]]).all():
        return null("no target: the dense network's learning curve has no start or no end")
    if gain.number is None or curve.scores[-1] <= curve.scores[0]:
        return null("no target: the dense network does not learn this task")
    return halfway(curve)


def _against(own: Value, dense: Life | None, phase: Phase) -> Value:
    if dense is None:
        return null(NO_DENSE)
    same = [other for other in dense.phases if (other.training, other.visit) == (phase.training, phase.visit)]
    theirs = area(dense.inside[same[0].number, phase.training]) if same else null("no such visit of the dense network")
    return difference(own, theirs)


def _stability(life: Life, phase: Phase) -> Iterator[tuple[str, Value]]:
    """Over the tasks that were learned before this phase."""
    old = {other.training for other in life.phases[: phase.number - 1]} - {phase.training}
    curves = {task: life.inside[phase.number, task] for task in sorted(old) if (phase.number, task) in life.inside}
    if not old:
        return
    for name, place in (("stability_gap", -1), ("stability_gap_before", 0)):
        gaps = [stability_gap(curve.scores[1:], float(curve.scores[place])) for curve in curves.values()]
        yield name, mean_of(gaps, "no look at old tasks inside this phase")
