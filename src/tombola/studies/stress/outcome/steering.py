"""Remarks on studies that steer themselves: what a search chose, and how difficulty followed the networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tombola.runs.rows import rows_of
from tombola.studies.base.numbers import begun, counted
from tombola.studies.stress.outcome.contrasts import Answer
from tombola.studies.stress.outcome.result import Stress

CONTROLLERS = {"random": "chance"}
"""What the control is called beside the strategy of that name."""
REWARD = "A reward is minus the loss of a network's last probe, in nats a token."
EASIEST = 1
"""The level that every task with levels begins with."""


def steered(result: Stress) -> list[Answer]:
    """Those that apply.

    Args:
        result: What a study came to.
    """
    return [*_difficulty(result), *_search(result)]


def _difficulty(result: Stress) -> list[Answer]:
    """At the last visits, where difficulty follows how well a task is learned: the mean over networks."""
    if not getattr(result.config, "adaptive", False):
        return []
    tasks = sorted({phase.training for life in result.lives for phase in life.phases if phase.difficulty is not None})
    found = {task: _levels(result, task) for task in tasks}
    if not found:
        return [Answer("Difficulty", "No task has levels of difficulty: none became harder.", {})]
    said = "; ".join(_of_task(task, levels) for task, levels in found.items())
    return [Answer("Difficulty", f"At the last visit, mean over networks: {said}.", found)]


def _of_task(task: str, levels: Mapping[str, float]) -> str:
    if all(level == EASIEST for level in levels.values()):
        return f"{task} at level {EASIEST}, its easiest, in all of them: none came to learn it well enough"
    return f"{task} at level {', '.join(f'{level:.3g} with {name}' for name, level in levels.items())}"


def _levels(result: Stress, task: str) -> dict[str, float]:
    """The mean level of a task's last visit, by group."""
    found = {}
    for key, group in result.groups.items():
        visits = [[phase.difficulty for phase in life.phases if phase.training == task] for life in group.lives]
        last = [of[-1] for of in visits if of and of[-1] is not None]
        if last:
            found[result.name(key)] = float(np.mean(last))
    return found


def _search(result: Stress) -> list[Answer]:
    """What each controller of a search got for its networks."""
    pulls = rows_of(result.rows, kind="pull")
    found: dict[str, dict[str, Any]] = {}
    for controller in dict.fromkeys(row["controller"] for row in pulls):
        own = rows_of(pulls, controller=controller)
        rewards = [row["reward"] for row in own]
        arms: dict[str, list[float]] = {}
        for row in own:
            arms.setdefault(f"{row['strategy']}_{row['level']:g}", []).append(row["reward"])
        most = max(arms, key=lambda arm: len(arms[arm]))
        best = max(arms, key=lambda arm: sum(arms[arm]) / len(arms[arm]))
        found[controller] = {
            "pulls": len(own),
            "mean_reward": sum(rewards) / len(rewards),
            "most_pulled": most,
            "best": best,
            "best_mean_reward": sum(arms[best]) / len(arms[best]),
        }
    if not found:
        return []
    parts = [
        f"{CONTROLLERS.get(name, name)}: mean reward {one['mean_reward']:.3f} over "
        f"{counted(one['pulls'], 'network')}, most often {one['most_pulled']}, best "
        f"{one['best']} ({one['best_mean_reward']:.3f})"
        for name, one in found.items()
    ]
    text = f"{begun('; '.join(parts))}. {REWARD} One search of each: whether one is better cannot be concluded."
    return [Answer("Search", text.replace("-", "−"), found)]
