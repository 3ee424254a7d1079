"""A study's outcome for programs: `pruning_stress_results.json` and `experiment_summaries.json`, every number with its
interval over seeds, how many seeds it is of, and the reason where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tombola.studies.stress.metrics import Value
from tombola.studies.stress.outcome.answers import answers
from tombola.studies.stress.outcome.estimates import Estimate
from tombola.studies.stress.outcome.groups import Group, Metrics
from tombola.studies.stress.outcome.lives import Life
from tombola.studies.stress.outcome.quantities import QUANTITIES
from tombola.studies.stress.outcome.remarks import remarks
from tombola.studies.stress.outcome.result import Stress


def as_json(result: Stress) -> dict[str, Any]:
    """`pruning_results` by strategy and level, floors, the answers, and what every metric means."""
    return {
        "pruning_results": {result.name(key): _group(group) for key, group in result.groups.items()},
        "floors": {model: {of: _entries(metrics) for of, metrics in by.items()} for model, by in result.floors.items()},
        "answers": [one.entry for one in answers(result)],
        "remarks": [one.entry for one in remarks(result)],
        "seeds": list(result.seeds),
        "metrics": {
            key: {"title": one.title, "unit": one.unit, "better": one.better, "meaning": one.meaning}
            for key, one in QUANTITIES.items()
        },
    }


def _group(group: Group) -> dict[str, Any]:
    """The means stand at the top, where users look for them; their intervals and reasons below `estimates`."""
    plasticity = group.plasticity
    return {
        **group.key._asdict(),
        "seeds": list(group.seeds),
        "draws": group.draws,
        "dead": group.dead,
        **{name: found.mean for name, found in group.metrics.items()},
        "estimates": _entries(group.metrics),
        "minus_dense": _entries(group.minus_dense),
        "minus_random": _entries(group.minus_random),
        "minus_untreated": _entries(group.minus_untreated),
        "plasticity": {
            "onset": plasticity.onset.entry,
            "cycles": [
                {
                    **moment._asdict(),
                    "network": network.entry,
                    "fresh": plasticity.fresh.get(moment, Estimate(None, reason="once per pruning")).entry,
                    "change": plasticity.changes.get(moment, Estimate(None, reason="the first probe")).entry,
                }
                for moment, network in plasticity.network.items()
            ],
        },
        "by_cycle": [moment._asdict() | _entries(found) for moment, found in group.by_cycle.items()],
        "by_task": {task: _entries(found) for task, found in group.by_task.items()},
        "function_floors": {of: _entries(found) for of, found in group.floors.items()},
    }


def _entries(metrics: Metrics) -> dict[str, Any]:
    return {name: found.entry for name, found in metrics.items()}


def experiment_summaries(result: Stress) -> list[dict[str, Any]]:
    """One entry for each network: what it is, its score matrix and its own metrics, before any averaging."""
    return [_life(life) for life in result.lives]


def _life(life: Life) -> dict[str, Any]:
    return {
        **life.key.columns,
        "dead": life.dead,
        "tasks": list(life.tasks),
        "phases": [
            {
                "phase": phase.number,
                "training": phase.training,
                "visit": phase.visit,
                **phase.moment._asdict(),
                "steps": phase.steps,
                "tokens": phase.tokens,
                "difficulty": phase.difficulty,
            }
            for phase in life.phases
        ],
        "scores_nats": [_numbers(-row) for row in life.scores],
        "scores_accuracy": [_numbers(row) for row in life.accuracies],
        **{name: value.number for name, value in life.metrics.items()},
        "reasons": _reasons(life.metrics),
    }


def _numbers(row: Any) -> list[float | None]:
    """JSON has no NaN."""
    return [None if value != value else float(value) for value in row]


def _reasons(metrics: Mapping[str, Value]) -> dict[str, str]:
    return {name: value.reason for name, value in metrics.items() if value.number is None and value.reason is not None}
