"""The histories of a cell's networks as lists for a program: every score, and the likeness to the unpruned model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tombola.runs.rows import Row
from tombola.studies.stress.outcome.groups import Group

WHOSE = ("model", "remedy", "seed", "draw")
WHEN = ("prune_cycle", "cycle", "phase", "step", "tokens", "epochs")
SCORE = ("training", "task", "nats", "accuracy", "items", "few_nats", "change", "change_se")
FUNCTION = ("of", "task", "kl", "js", "top1", "flips", "cosine", "cka", "tokens")
PROBE = ("task", "steps", "nats", "nats_before")
STATE = ("dormant", "effective_rank", "weight_norm", "entropy")


def metrics_history(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """`metrics_history.json`: after each phase and pruning the scores of every task; after each cycle probe and state.

    Args:
        groups: those of one strategy and level.

    Returns:
        One dict a measurement, in order of time network by network; `measured` says what it is of.
    """
    found = []
    for group in groups:
        for life in group.lives:
            rows = [row for row in life.rows.get("score", ()) if row["look"] == "end"]
            found += [_entry("score", row, SCORE) for row in rows]
            probes = [row for row in life.rows.get("probe", ()) if row["of"] == "network"]
            found += [_entry("probe", row, PROBE) for row in probes]
            found += [_entry("state", row, STATE) for row in life.rows.get("state", ())]
    return found


def function_history(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """`function_history.json`: likeness to the unpruned model after each pruning and cycle, and its two floors."""
    rows = [row for group in groups for life in group.lives for row in life.rows.get("function", ())]
    return [_entry("function", row, FUNCTION) for row in rows]


def _entry(measured: str, row: Row, columns: Sequence[str]) -> dict[str, Any]:
    reasons = {f"{name}_reason": row[f"{name}_reason"] for name in columns if row.get(f"{name}_reason")}
    return {"measured": measured} | {name: row.get(name) for name in (*WHOSE, *WHEN, *columns)} | reasons
