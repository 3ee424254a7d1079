"""Every metric of a life: over the whole of it, by cycle and by task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tombola.runs.rows import Row
from tombola.studies.stress.metrics import (
    Array,
    Value,
    average,
    backward_transfer,
    difference,
    forgetting,
    forward_transfer,
    is_dead,
    known,
    mean_of,
    null,
)
from tombola.studies.stress.outcome.lives import Life, Moment, Scores
from tombola.studies.stress.outcome.visits import Visit, known_gain, visits_of

DEAD = "a dead network: as an untrained one after pruning, and no task learned beyond noise"
ONCE = "every task was learned once"
LATER = ("avg_recovery_rate", "recovery_second", "recovery_alone", "recovery_minus_alone", "savings")
"""Metrics of second and later visits."""
ADAPTATION = ("adaptation_steps", "adaptation_tokens", "target_reached")
AREA = ("learning_area", "learning_area_vs_dense")
STABILITY = ("stability_gap", "stability_gap_before")
OF_ONE_TASK = ("gain", "avg_forgetting_rate", *LATER, *ADAPTATION, *AREA)
OF_VISITS = (*OF_ONE_TASK, *STABILITY)
"""Metrics that are a mean over visits."""
STATE = ("dormant", "effective_rank", "weight_norm", "entropy")
FUNCTION = ("kl", "js", "top1", "flips", "cosine", "cka")
PRUNED = ("reached", "parameters", "parameters_removed", "removal_error")
TRANSFER = ("bwt", "bwt_accuracy", "fwt", "fwt_accuracy", "fwt_start", "forgetting", "forgetting_accuracy")
NOT_OF_THE_DEAD = ("gain", "avg_forgetting_rate", *LATER, *ADAPTATION, *STABILITY, *TRANSFER)
"""What a network that is dead has no number for: rates of nothing, and 0 by construction."""
Floors = Mapping[str, Mapping[str, Row]]
"""Floor rows of one model and seed: what they are of, then by task."""


def measured(life: Life, dense: Life | None, floors: Floors) -> Life:
    """The life with its metrics. `dense` is the reference of the same model and seed."""
    visits = visits_of(life, dense)
    untrained = [_floor(floors.get("untrained", {}), life.tasks, name) for name in ("nats", "accuracy")]
    gains = [known_gain(life, phase.number, life.tasks.index(phase.training)) for phase in life.phases]
    noise = np.max(np.nan_to_num(life.noise), axis=0)
    dead = bool(gains) and is_dead(life.scores[0], untrained[0], gains, noise)
    metrics = _of_matrix(life, *untrained) | _of_visits(visits, OF_VISITS) | _beside(life)
    by_cycle = _by_cycle(life, visits)
    by_task = {task: _of_task(life, j, visits) for j, task in enumerate(life.tasks)}
    if dead:
        metrics = _without(metrics)
        by_cycle = {moment: _without(found) for moment, found in by_cycle.items()}
        by_task = {task: _without(found) for task, found in by_task.items()}
        visits = [replace(visit, values=_without(visit.values)) for visit in visits]
    by_visit: dict[str, dict[tuple[str, int], Value]] = defaultdict(dict)
    for visit in visits:
        for name, value in visit.values.items():
            by_visit[name][visit.task, visit.phase.visit] = value
    return replace(life, metrics=metrics, by_cycle=by_cycle, by_task=by_task, by_visit=by_visit, dead=dead)


def _without(metrics: Mapping[str, Value]) -> dict[str, Value]:
    return {name: null(DEAD) if name in NOT_OF_THE_DEAD else value for name, value in metrics.items()}


def _floor(rows: Mapping[str, Row], tasks: Sequence[str], column: str) -> Array:
    sign = -1 if column == "nats" else 1
    values = [rows.get(task, {}).get(column) for task in tasks]
    return np.array([np.nan if value is None else sign * value for value in values], dtype=np.float64)


def _of_matrix(life: Life, untrained: Array, untrained_accuracy: Array) -> dict[str, Value]:
    nats, accuracies, visits = life.scores, life.accuracies, life.visits
    found = _scored(life.after[-1])
    return found | {
        "performance_start": average(nats[0]),
        "performance_start_accuracy": average(accuracies[0]),
        "bwt": backward_transfer(nats, visits),
        "bwt_accuracy": backward_transfer(accuracies, visits),
        "fwt": forward_transfer(nats, visits, untrained),
        "fwt_accuracy": forward_transfer(accuracies, visits, untrained_accuracy),
        "fwt_start": forward_transfer(nats, visits, nats[0]),
        "forgetting": forgetting(nats, visits),
        "forgetting_accuracy": forgetting(accuracies, visits),
    }


def _scored(state: Scores) -> dict[str, Value]:
    """Loss and accuracy stay apart: a mean of both would be of nothing."""
    return {
        "performance": average(state.nats),
        "performance_nats": average(-state.nats),
        "performance_accuracy": average(state.accuracy),
    }


def _of_visits(visits: Iterable[Visit], names: Sequence[str]) -> dict[str, Value]:
    found: dict[str, list[Value]] = defaultdict(list)
    for visit in visits:
        for name, value in visit.values.items():
            found[name].append(value)
    return {name: mean_of(found[name], ONCE if name in LATER else "no such visit") for name in names}


def _beside(life: Life) -> dict[str, Value]:
    """Probe, correlates, function and size: after the last cycle, and where it says so after the first pruning."""
    states, functions = life.rows.get("state", ()), _functions(life)
    found = {name: _column(states[-1:], name) for name in STATE}
    found |= {name: _column(functions[-1:], name) for name in FUNCTION}
    found |= {f"{name}_start": _column(functions[:1], name) for name in ("kl", "top1")}
    found |= {name: _column(life.rows.get("pruned", ())[-1:], name) for name in PRUNED}
    return found | _probe(life)


def _probe(life: Life) -> dict[str, Value]:
    own, fresh = probes_of(life, "network"), probes_of(life, "fresh")
    if not own:
        reason = null("the probe was not run")
        return dict.fromkeys(("probe_nats", "probe_start", "probe_change", "probe_minus_fresh"), reason)
    first, last = own[min(own)], own[max(own)]
    start = _after_pruning(own, max(own))
    of_fresh = {moment.prune_cycle: value for moment, value in fresh.items()}
    beside = of_fresh.get(max(own).prune_cycle, null("no fresh network"))
    return {
        "probe_nats": last,
        "probe_start": first,
        "probe_change": difference(last, start) if start is not last else null("the probe was run once"),
        "probe_minus_fresh": difference(last, beside),
    }


def _after_pruning(probes: Mapping[Moment, Value], moment: Moment) -> Value:
    """The probe just after the pruning that comes before a moment."""
    return probes[min(one for one in probes if one.prune_cycle == moment.prune_cycle)]


def probes_of(life: Life, of: str) -> dict[Moment, Value]:
    """Loss after the steps of the probe, by cycle; of `network`, or of `fresh` beside it."""
    rows = [row for row in life.rows.get("probe", ()) if row["of"] == of]
    return {moment_of(row): _column([row], "nats") for row in rows}


def moment_of(row: Row) -> Moment:
    """The cycle that a row is of."""
    return Moment(row["prune_cycle"], row["cycle"])


def _functions(life: Life) -> list[Row]:
    return [row for row in life.rows.get("function", ()) if row["of"] == "network"]


def _column(rows: Sequence[Row], name: str) -> Value:
    """Of the one row; a value that is null carries the reason that the row has for it."""
    if not rows:
        return null("not measured")
    number = rows[0].get(name)
    return null(rows[0].get(f"{name}_reason") or "not measured") if number is None else known(number)


def _by_cycle(life: Life, visits: Sequence[Visit]) -> dict[Moment, dict[str, Value]]:
    """In order of time. Just after a pruning there are scores and what is measured beside, and no visits."""
    found: dict[Moment, dict[str, Value]] = defaultdict(dict)
    for row, state in zip(life.rows.get("pruned", ()), life.pruned, strict=False):
        found[moment_of(row)] |= _scored(state) | {name: _column([row], name) for name in PRUNED}
    for moment in life.moments:
        within = [visit for visit in visits if visit.phase.moment == moment]
        found[moment] |= _scored(life.after[within[-1].phase.number]) | _of_visits(within, OF_VISITS)
    for rows, names in ((life.rows.get("state", ()), STATE), (_functions(life), FUNCTION)):
        for row in rows:
            found[moment_of(row)] |= {name: _column([row], name) for name in names}
    probes = probes_of(life, "network")
    for moment, value in probes.items():
        found[moment] |= {"probe_nats": value, "probe_change": difference(value, _after_pruning(probes, moment))}
    return {moment: found[moment] for moment in sorted(found)}


def _of_task(life: Life, j: int, visits: Sequence[Visit]) -> dict[str, Value]:
    own = [visit for visit in visits if visit.task == life.tasks[j]]
    found = {
        "performance_nats": known(-life.scores[-1, j]),
        "performance_accuracy": known(life.accuracies[-1, j]),
        "performance_start": known(life.scores[0, j]),
    }
    first = _of_visits((visit for visit in own if visit.phase.visit == 1), AREA)
    return found | _of_visits(own, OF_ONE_TASK) | {f"{name}_first": value for name, value in first.items()}
