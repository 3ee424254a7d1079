"""The five questions of a stress study, answered by its numbers; where nothing is shown the answer says so.

Differences are paired by seed. One is shown where Student's t test over seeds, two-sided at 5 %, finds it after Holm's
correction for all differences that the question looks at. Networks with a remedy are in `remarks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from tombola.reports.significance import Judged
from tombola.studies.base.numbers import begun, counted
from tombola.studies.stress.outcome.contrasts import (
    ONE_SEED,
    Answer,
    contrast_entry,
    has,
    is_better,
    judge,
    mean_over,
    over_levels,
    per_model,
    plain_groups,
    said,
    seeds_in,
)
from tombola.studies.stress.outcome.estimates import BySeed, Estimate, over_seeds
from tombola.studies.stress.outcome.groups import DENSE, difference_by_seed
from tombola.studies.stress.outcome.quantities import QUANTITIES
from tombola.studies.stress.outcome.result import Stress
from tombola.studies.stress.outcome.trade_offs import architectures, size

STRATEGIES = "Which strategies preserve the most plasticity?"
LEVELS = "How does the level affect adaptation and recovery?"
TASKS = "Can pruning improve adaptation to certain tasks?"
BY_LEVEL = ("learning_area", "adaptation_steps", "avg_recovery_rate", "probe_nats")


def answers(result: Stress) -> list[Answer]:
    """The answers in the order of the questions.

    Args:
        result: What a study came to.
    """
    return [strategies(result), levels(result), size(result), architectures(result), tasks(result)]


def strategies(result: Stress) -> Answer:
    """By the loss of the probe after the last cycle, mean over levels; without a probe by the score while learning."""
    return per_model(result, STRATEGIES, _strategies)


def _strategies(result: Stress, model: str) -> tuple[str, dict[str, Any]]:
    metric = next((one for one in ("probe_nats", "learning_area") if has(plain_groups(result, model), one)), None)
    if metric is None:
        return "Not measured: neither the probe nor a learning curve is there.", {}
    names = [
        one for one in result.strategies if any(group.key.strategy == one for group in plain_groups(result, model))
    ]
    dense = {name: over_seeds(over_levels(result, model, name, DENSE, metric)) for name in names}
    pairs = {
        (ours, theirs): over_seeds(over_levels(result, model, ours, theirs, metric))
        for ours, theirs in combinations(names, 2)
    }
    verdicts = judge(pairs)
    numbers = {
        "metric": metric,
        "minus_dense": {name: one.entry for name, one in dense.items()},
        "pairs": [
            {"ours": pair[0], "theirs": pair[1], **contrast_entry(one, verdicts.get(pair))}
            for pair, one in pairs.items()
        ],
    }
    of = f"{QUANTITIES[metric].title}, mean over levels, minus dense"
    known = sorted((one.mean, name) for name, one in dense.items() if one.mean is not None)
    ordered = [name for _, name in (known if QUANTITIES[metric].better == "less" else known[::-1])]
    beside = f"{begun(of)}: {'; '.join(f'{name} {said(dense[name], metric)}' for name in ordered)}." if ordered else ""
    return f"{_ranking(pairs, verdicts, metric, names)} {beside}".strip(), numbers


def _ranking(
    pairs: Mapping[tuple[str, str], Estimate],
    verdicts: Mapping[tuple[str, str], Judged],
    metric: str,
    names: list[str],
) -> str:
    if len(names) < 2:
        return f"One strategy ({names[0]}): there is none to compare it with."
    n = seeds_in(pairs.values())
    if n < 2:
        return ONE_SEED if n else "Not known: no two strategies share a seed and a level."
    wins = []
    for (ours, theirs), one in verdicts.items():
        if one.side != "open":
            best, other = (ours, theirs) if is_better(metric, one.side) else (theirs, ours)
            control = ", a control," if best == "random" else ""
            difference = f"{ours} − {theirs}: {said(pairs[ours, theirs], metric)}"
            wins.append(f"{best}{control} preserves more than {other} ({difference})")
    if not wins:
        compared = counted(len(pairs), "pair")
        return f"No strategy is shown to preserve more than another: no difference shown in {compared} (n = {n} seeds)."
    rest = len(pairs) - len(wins)
    others = f" No difference is shown in the other {counted(rest, 'pair')}." if rest else ""
    return f"{begun('; '.join(wins))}.{others}"


def levels(result: Stress) -> Answer:
    """The highest level minus the lowest, mean over strategies."""
    return per_model(result, LEVELS, _levels)


def _levels(result: Stress, model: str) -> tuple[str, dict[str, Any]]:
    found = sorted({group.key.level for group in plain_groups(result, model)})
    if len(found) < 2:
        return f"Nothing can be said with one level ({found[0]:g})." if found else "Nothing was pruned.", {}
    low, high = found[0], found[-1]
    changes = {metric: over_seeds(_between_levels(result, model, low, high, metric)) for metric in BY_LEVEL}
    verdicts = judge(changes)
    numbers = {metric: contrast_entry(one, verdicts.get(metric)) for metric, one in changes.items()}
    parts = []
    for metric, one in changes.items():
        verdict = verdicts.get(metric)
        shown = "" if verdict is None or one.n < 2 else _shown(verdict)
        parts.append(f"{QUANTITIES[metric].title} {said(one, metric)}{shown}")
    begin = f"{ONE_SEED} " if seeds_in(changes.values()) == 1 else ""
    text = f"{begin}From level {low:g} to {high:g}, mean over strategies: {'; '.join(parts)}."
    return text, {"from": low, "to": high, "changes": numbers}


def _shown(verdict: Judged) -> str:
    return ", no difference shown" if verdict.side == "open" else ", shown"


def _between_levels(result: Stress, model: str, low: float, high: float, metric: str) -> BySeed:
    parts = [
        difference_by_seed(ours, theirs, metric)
        for name in result.strategies
        if (ours := result.group(model, name, high)) is not None
        and (theirs := result.group(model, name, low)) is not None
    ]
    return mean_over(parts)


def tasks(result: Stress) -> Answer:
    """By the score while a task is first learned, minus dense, for every task at every strategy and level."""
    metric = "learning_area_vs_dense"
    found = {
        (result.name(group.key), task): over_seeds(group.task_by_seed(task, f"{metric}_first"))
        for model in result.models
        for group in plain_groups(result, model)
        for task in group.by_task
    }
    verdicts = judge(found)
    numbers = {
        "comparisons": [
            {"network": name, "task": task, **contrast_entry(one, verdicts.get((name, task)))}
            for (name, task), one in found.items()
        ]
    }
    if not verdicts:
        return Answer(TASKS, "Not known: no task was learned by both a pruned network and the dense one.", numbers)
    largest = max(verdicts, key=lambda pair: verdicts[pair].difference.mean)
    most = f"{largest[1]} with {largest[0]}, {said(found[largest], metric)}"
    n = seeds_in(found.values())
    if n < 2:
        return Answer(TASKS, f"{ONE_SEED} The largest difference to dense: {most}.", numbers)
    better = [pair for pair, one in verdicts.items() if one.side == "above"]
    worse = sum(one.side == "below" for one in verdicts.values())
    compared = counted(len(verdicts), "comparison")
    if better:
        named = "; ".join(f"{task} with {name}, {said(found[name, task], metric)}" for name, task in better[:5])
        more = f" and {len(better) - 5} more" if len(better) > 5 else ""
        text = f"Yes, in {len(better)} of {compared} with dense: {named}{more}."
    else:
        text = f"No improvement is shown in {compared} with dense (n = {n} seeds); the largest: {most}."
    return Answer(TASKS, f"{text} A loss is shown in {worse}." if worse else text, numbers)
