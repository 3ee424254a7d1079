"""A cell is pruned, and looked at before anything is learned again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from tombola.models.causal.gates import HeadGates
from tombola.runs.rows import Row
from tombola.studies.stress.cells import Moment
from tombola.studies.stress.config import DENSE
from tombola.studies.stress.living.cell import Living
from tombola.studies.stress.living.looking import FRESH, NETWORK, correlates_row, function_row, probe_row
from tombola.studies.stress.living.scoring import end_rows, numbers_of, scored
from tombola.studies.stress.living.state import State
from tombola.studies.stress.living.strategies import Scoring
from tombola.studies.stress.living.units import chosen, made_smaller
from tombola.studies.stress.subjects.curriculum import few
from tombola.training.task import Scored


def pruned(living: Living, moment: Moment, state: State) -> tuple[list[Row], State]:
    """The unit that begins a prune cycle."""
    row, state = _pruning(living, moment, state)
    columns, first = living.columns(moment, state), moment.prune_cycle == 0
    scores = scored(state.network, living.curriculum.tasks)
    if first:
        state.start = {task: score.each for task, score in scores.items() if score.each is not None}
    fresh = living.fresh("probe")
    living.masks(fresh, state).apply_(fresh)
    rows = [
        {**columns, **row},
        *end_rows(columns, living.curriculum.tasks, scores, state.start),
        probe_row(living, columns, state, state.network, NETWORK),
        probe_row(living, columns, state, fresh, FRESH),
        correlates_row(living, columns, state),
    ]
    if living.config.function:
        rows.append(function_row(living, columns, NETWORK, state.network))
        rows += _function_floors(living, columns) if first else []
    if first and living.spec.key.strategy == DENSE:
        rows += _score_floors(living, columns)
    return rows, state


def _pruning(living: Living, moment: Moment, state: State) -> tuple[Row, State]:
    """Removes what is to be gone by now; nothing of a reference."""
    key, config = living.spec.key, living.config
    looks = dict(zip(living.curriculum.names, few(list(living.curriculum.tasks.values())), strict=True))
    before, total = scored(state.network, looks), sum(map(len, state.keep))
    done = moment.prune_cycle + 1
    level = key.level if done == config.prune_cycles else key.level * done / config.prune_cycles
    said = 0  # weights of what goes now, that are not 0 already
    if not key.is_reference:
        seed = living.seed_of("choice", key.draw, moment.prune_cycle)
        scoring = Scoring(state.network, list(living.curriculum.tasks.values()), seed)
        state.keep = chosen(scoring, config.structure, key.strategy, level, state.keep, config.equal)
        masks = living.masks(state.network, state)
        said = masks.removed_nonzeros(state.network)
        masks.apply_(state.network)
    after = scored(state.network, looks)
    kept = [int(keep.sum()) for keep in state.keep]
    gone = total - sum(kept)
    smaller = made_smaller(state.network, config.structure, state.keep)
    row = {
        "kind": "pruned",
        "units_total": total,
        "units_removed": gone,
        "kept_by_layer": kept,
        "reached": gone / total,
        "parameters": smaller.parameters_before,
        "parameters_removed": smaller.parameters_before - smaller.parameters_after,
        "removal_error": smaller.error,
        "nats_before": _mean(before),
        "nats_after": _mean(after),
        "check_exact": gone == wanted(level, [len(keep) for keep in state.keep], config.equal),
        "check_changed": None if not said else any(before[name].loss != after[name].loss for name in looks),
    }
    return row, state


def wanted(level: float, sizes: list[int], equal: bool) -> int:
    """How many of the layers' units are to be gone at a level."""
    return sum(round(level * size) for size in sizes) if equal else round(level * sum(sizes))


def _mean(scores: Mapping[str, Scored]) -> float:
    return sum(score.loss for score in scores.values()) / len(scores)


@contextlib.contextmanager
def _without_attention(living: Living) -> Iterator[nn.Module]:
    """The model as it was given, with all heads off."""
    network = living.network()
    with HeadGates(network) as gates, torch.no_grad():
        for gate in gates.values:
            gate.zero_()
        yield network


def _function_floors(living: Living, columns: Row) -> list[Row]:
    """What the measures say of a network without attention, and of one that never learned anything."""
    with _without_attention(living) as network:
        off = function_row(living, columns, "all_off", network)
    return [off, function_row(living, columns, "independent", living.fresh("independent"))]


def _score_floors(living: Living, columns: Row) -> list[Row]:
    """The same two on the tasks."""
    with _without_attention(living) as network:
        off = scored(network, living.curriculum.tasks)
    untrained = scored(living.fresh("independent"), living.curriculum.tasks)
    return [
        {**columns, "kind": "floor", "of": of, "task": task, **numbers_of(score)}
        for of, scores in (("all_off", off), ("untrained", untrained))
        for task, score in scores.items()
    ]
