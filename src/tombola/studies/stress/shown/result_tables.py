"""The tables of a stress study: strategies and levels, tasks, likeness to the unpruned model, and what metrics mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tombola.reports.tables import MISSING, Table
from tombola.studies.base.numbers import begun, listed
from tombola.studies.stress.outcome.estimates import Estimate
from tombola.studies.stress.outcome.groups import Group, GroupKey, Metrics
from tombola.studies.stress.outcome.quantities import QUANTITIES
from tombola.studies.stress.outcome.result import Stress
from tombola.studies.stress.shown.comparisons import DIRECTIONS, decimals
from tombola.studies.stress.shown.places import label
from tombola.studies.stress.shown.timelines import FLOORS, PRESERVED

OVERVIEW = {
    "performance_nats": "Loss",
    "performance_accuracy": "Accuracy",
    "avg_forgetting_rate": "Forgetting rate",
    "avg_recovery_rate": "Recovery rate",
    "recovery_second": "Recovery, 2nd visit",
    "recovery_alone": "The same alone",
    "savings": "Savings",
    "adaptation_steps": "Steps to target",
    "target_reached": "Targets reached",
    "probe_nats": "Probe loss",
    "probe_change": "Its change",
    "probe_minus_fresh": "Minus fresh",
    "top1": "Top-1 agreement",
}
OVERVIEW_NOTE = (
    "Means over seeds ± half of the 95 % interval (Student t); one seed has none. Losses and the probe are nats a "
    "target token, steps to the target optimizer steps, all else fractions. Less is better of losses, forgetting, "
    "steps and the probe, more of the rest. Loss and accuracy are of the held-out items of all tasks at the end. "
    "Recovery is above 1 where learning still went on, beyond the earlier best; alone is the control without "
    "interference: the task learned a second time at once, in as many steps. The floors are what a network scores "
    "whose heads are all off, and one that was never trained."
)
SHORT = {
    "performance_nats": "Loss",
    "avg_forgetting_rate": "Forget",
    "avg_recovery_rate": "Recover",
    "recovery_alone": "Alone",
    "probe_change": "Probe change",
    "adaptation_steps": "Steps",
}
"""For a terminal."""
SHORT_NOTE = (
    "Loss: held out, mean over all tasks at the end, nats a target token. Forget: lost again, of what was learned. "
    "Recover: regained, of what was lost, above 1 where learning still went on; alone: the same without other tasks "
    "between. Probe change: of the loss after some steps on a held-out language; it rises where plasticity is lost. "
    "Steps: of a first visit to its target. {means}; the report and --json have all."
)
OF_TASKS = {
    "performance_nats": "Loss at the end",
    "performance_accuracy": "Accuracy",
    "gain": "Learned gain",
    "avg_forgetting_rate": "Forgetting rate",
    "avg_recovery_rate": "Recovery rate",
    "savings": "Savings",
    "adaptation_steps": "Steps to target",
    "learning_area_vs_dense": "Score while learning, minus dense",
}
OF_CYCLES = {
    "performance_nats": "Loss",
    "performance_accuracy": "Accuracy",
    "avg_forgetting_rate": "Forgetting rate",
    "avg_recovery_rate": "Recovery rate",
    "adaptation_steps": "Steps to target",
    "probe_nats": "Probe loss",
    "top1": "Top-1 agreement",
    "dormant": "Dormant units",
    "effective_rank": "Effective rank",
    "weight_norm": "Weight norm",
    "entropy": "Entropy",
}
CYCLES_NOTE = (
    "Means over seeds ± half of the 95 % interval. The first row of a pruning is just after it. Dormant units, "
    "effective rank and weight norm go along with loss of plasticity elsewhere; they are no proof of it."
)
TASKS_NOTE = "Means over seeds ± half of the 95 % interval; losses, gains and scores in nats a target token."
FLOOR_NAMES = {"all_off": "floor: all heads off", "untrained": "floor: never trained"}


def short_note(result: Stress) -> str:
    """What the columns of the short table are."""
    several = f"Means over {len(result.seeds)} seeds ± half of the 95 % interval"
    means = several if len(result.seeds) > 1 else "One seed, so that there are no intervals"
    return SHORT_NOTE.format(means=means)


def overview_table(result: Stress) -> Table:
    """A row for every strategy and level, dense and gradual changes first, below them the floors."""
    rows = [[*_whose(result, key), *_cells(group.metrics, OVERVIEW), _n(group)] for key, group in _ordered(result)]
    for model, floors in result.floors.items():
        for of, metrics in floors.items():
            known = {"performance_nats": metrics["nats"], "performance_accuracy": metrics["accuracy"]}
            name = FLOOR_NAMES.get(of, f"floor: {of}")
            begin = [model, name, ""] if len(result.models) > 1 else [name, ""]
            rows.append([*begin, *_cells(known, OVERVIEW), str(metrics["nats"].n)])
    return Table([*_whose_titles(result), *OVERVIEW.values(), "Seeds"], rows)


def short_table(result: Stress) -> Table:
    """What fits a terminal of 80 columns."""
    rows = []
    for key, group in _ordered(result):
        cells = _cells(group.metrics, SHORT, ("performance_nats", "probe_change"))
        rows.append([*_whose(result, key), *cells])
    return Table([*_whose_titles(result), *SHORT.values()], rows)


def tasks_table(result: Stress) -> Table:
    """A row for every task of every strategy and level."""
    rows = [
        [task, *_whose(result, key), *_cells(found, OF_TASKS)]
        for task in dict.fromkeys(task for _, group in _ordered(result) for task in group.by_task)
        for key, group in _ordered(result)
        if (found := group.by_task.get(task)) is not None
    ]
    return Table(["Task", *_whose_titles(result), *OF_TASKS.values()], rows)


def cycles_table(result: Stress) -> Table:
    """A row for every pruning and cycle of every strategy and level: longitudinal."""
    rows = [
        [*_whose(result, key), str(moment.prune_cycle + 1), str(moment.cycle), *_cells(found, OF_CYCLES)]
        for key, group in _ordered(result)
        for moment, found in group.by_cycle.items()
    ]
    return Table([*_whose_titles(result), "Pruning", "Cycle", *OF_CYCLES.values()], rows)


def function_table(result: Stress) -> Table | None:
    """Likeness to the unpruned model after the last cycle, every model's floors below; None where not measured."""
    titles = {metric: begun(QUANTITIES[metric].title) for metric in PRESERVED}
    rows: list[list[str]] = []
    floors: dict[str, Mapping[str, Metrics]] = {}
    for key, group in _ordered(result):
        if any(group.metrics[metric].mean is not None for metric in PRESERVED):
            rows.append([*_whose(result, key), *_cells(group.metrics, titles)])
            floors.setdefault(key.model, group.floors)
    for model, found in floors.items():
        for of, name in FLOORS.items():
            begin = [model, name, ""] if len(result.models) > 1 else [name, ""]
            rows.append([*begin, *_cells(found.get(of, {}), titles)])
    return Table([*_whose_titles(result), *titles.values()], rows) if rows else None


def glossary_table() -> Table:
    """Every metric: what it is called, its unit, which direction is good, its formula."""
    return Table(
        ("Metric", "Key", "Unit", "Direction", "Meaning"),
        [
            (begun(one.title), one.key, one.unit or MISSING, DIRECTIONS[one.better] or MISSING, one.meaning)
            for one in QUANTITIES.values()
        ],
    )


def null_lines(result: Stress) -> list[str]:
    """Why numbers of the overview are missing: a line for each reason and the metrics that it is of, with where."""
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for key, group in _ordered(result):
        reasons: dict[str, list[str]] = {}
        for metric in OVERVIEW:
            if group.metrics[metric].mean is None:
                reasons.setdefault(group.metrics[metric].reason or "not measured", []).append(QUANTITIES[metric].title)
        for reason, titles in reasons.items():
            found.setdefault((reason, tuple(titles)), []).append(_name(result, key))
    return [f"No {listed(titles, 'or')}: {listed(where)}: {reason}." for (reason, titles), where in found.items()]


def _ordered(result: Stress) -> list[tuple[GroupKey, Group]]:
    """Model by model: the references first, then strategies in their order, each from the lowest level."""
    return [
        (key, group)
        for model in result.models
        for reference in (True, False)
        for key, group in result.groups.items()
        if key.model == model and key.is_reference == reference
    ]


def _whose_titles(result: Stress) -> list[str]:
    return [*(["Model"] if len(result.models) > 1 else []), "Strategy", "Level"]


def _whose(result: Stress, key: GroupKey) -> list[str]:
    level = "" if key.is_reference else f"{100 * key.level:g}%"
    return [*([key.model] if len(result.models) > 1 else []), label(key), level]


def _name(result: Stress, key: GroupKey) -> str:
    return " ".join(part for part in _whose(result, key) if part)


def _n(group: Group) -> str:
    return f"{len(group.seeds)} × {group.draws}" if group.draws > 1 else str(len(group.seeds))


def _cells(
    metrics: Mapping[str, Estimate], columns: Mapping[str, str], with_interval: Sequence[str] | None = None
) -> list[str]:
    return [
        _cell(metrics.get(metric), with_interval is None or metric in with_interval) if metric in metrics else MISSING
        for metric in columns
    ]


def _cell(found: Estimate | None, with_interval: bool) -> str:
    if found is None or found.mean is None:
        return MISSING
    places = decimals(found.mean)
    half = found.high is not None and with_interval
    beside = f" ±{(found.high or 0.0) - found.mean:,.{places}f}" if half else ""
    return f"{found.mean:,.{places}f}{beside}".replace("-", "−")
