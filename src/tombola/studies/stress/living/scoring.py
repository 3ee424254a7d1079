"""The held-out score of every task, and the rows that hold it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tombola.runs.rows import Row
from tombola.studies.stress.subjects.curriculum import FEW
from tombola.training.completions import Completions
from tombola.training.task import Scored

END, INSIDE = "end", "inside"
"""Looks: at all held-out items after something has ended, and at a few while a task is learned."""


def scored(network: nn.Module, tasks: Mapping[str, Completions]) -> dict[str, Scored]:
    """A network on the held-out items of every task."""
    return {name: task.scores(network, "validation") for name, task in tasks.items()}


def end_rows(
    columns: Row,
    tasks: Mapping[str, Completions],
    scores: Mapping[str, Scored],
    start: Mapping[str, Tensor],
    training: str | None = None,
    in_phase: tuple[int, int] = (0, 0),
) -> list[Row]:
    """A row for every task. `start`: nats of each item just after the first pruning; `in_phase`: steps and tokens."""
    return [
        {
            **columns,
            "kind": "score",
            "task": task,
            "training": training,
            "look": END,
            **_position(in_phase),
            **numbers_of(score),
            "few_nats": _of_few(tasks[task], score),
            **_change(score, start[task]),
        }
        for task, score in scores.items()
    ]


def inside_row(columns: Row, task: str, training: str, score: Scored, in_phase: tuple[int, int]) -> Row:
    """A look while a task is learned."""
    nothing: dict[str, Any] = dict.fromkeys(("few_nats", "change", "change_se"))
    head = {**columns, "kind": "score", "task": task, "training": training, "look": INSIDE}
    return {**head, **_position(in_phase), **numbers_of(score), **nothing}


def numbers_of(score: Scored) -> Row:
    """What a row says of a score."""
    return {"nats": score.loss, "accuracy": score.accuracy, "items": score.examples}


def _of_few(task: Completions, score: Scored) -> float:
    """The mean over the tokens of those items that are looked at inside phases, from the scores of all."""
    assert score.each is not None
    tokens = task.held_out.counted[:FEW].sum(1).cpu()
    return float((score.each[:FEW].double() * tokens).sum() / tokens.sum())


def _position(in_phase: tuple[int, int]) -> Row:
    return {"step_in_phase": in_phase[0], "tokens_in_phase": in_phase[1]}


def _change(score: Scored, start: Tensor) -> Row:
    """How much better than at the start, and its standard error: paired over items."""
    assert score.each is not None
    gain = start.double() - score.each.double()
    return {"change": float(gain.mean()), "change_se": float(gain.std() / len(gain) ** 0.5)}
