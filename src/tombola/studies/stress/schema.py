"""What the columns of a stress study's rows may hold, and what the study checks of itself."""

from __future__ import annotations

from typing import Any

from tombola.runs.columns import Check, Schema, amount, count, fraction, number, optional, text, truth
from tombola.studies.stress.cells import KEY

UNIT = (*KEY, "unit", "controller", "pull")
"""A moment of a network's life, or a pull of a search."""
CHECKS = {
    "check_exact": "as many heads or neurons are gone as asked",
    "check_changed": "pruning changed what the network says",
    "check_held": "what was removed stayed removed",
}
_WHO: dict[str, Check] = {
    "model": text,
    "strategy": text,
    "level": fraction,
    "draw": count,
    "remedy": text,
    "seed": count,
}
_WHEN: dict[str, Check] = {
    **_WHO,
    **dict.fromkeys(("unit", "prune_cycle", "cycle", "phase", "step", "tokens"), count),
    "epochs": amount,
}
_SCORE: dict[str, Check] = {"task": text, "nats": number, "accuracy": fraction, "items": count}


def _points(value: Any) -> bool:
    """A learning curve: [[step, nats], ...]."""
    return isinstance(value, list) and all(
        isinstance(point, list) and len(point) == 2 and all(map(number, point)) for point in value
    )


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(map(count, value))


SCHEMA: Schema = {
    "pruned": {
        **_WHEN,
        **dict.fromkeys(("units_total", "units_removed", "parameters", "parameters_removed"), count),
        "kept_by_layer": _counts,
        "reached": fraction,
        "removal_error": optional(amount),
        "nats_before": number,
        "nats_after": number,
        "check_exact": truth,
        "check_changed": optional(truth),
    },
    "score": {
        **_WHEN,
        **_SCORE,
        "training": optional(text),
        "look": text,
        "step_in_phase": count,
        "tokens_in_phase": count,
        **dict.fromkeys(("few_nats", "change", "change_se"), optional(number)),
    },
    "phase": {
        **_WHEN,
        "training": text,
        **dict.fromkeys(("visit", "steps", "phase_tokens"), count),
        "phase_epochs": amount,
        "difficulty": optional(count),
        "seconds": amount,
        "check_held": truth,
    },
    "alone": {**_WHEN, **_SCORE, "steps": count},
    "probe": {
        **_WHEN,
        "task": text,
        "of": text,
        "steps": count,
        "nats": number,
        "nats_before": number,
        "curve": _points,
    },
    "state": {
        **_WHEN,
        "dormant": fraction,
        "effective_rank": optional(amount),
        "weight_norm": amount,
        "entropy": optional(fraction),
    },
    "function": {
        **_WHEN,
        "of": text,
        "tokens": count,
        **dict.fromkeys(("kl", "js"), amount),
        "top1": fraction,
        "flips": optional(fraction),
        "cosine": number,
        "cka": optional(number),
    },
    "floor": {**_WHEN, **_SCORE, "of": text},
    "pull": {**_WHO, "controller": text, "pull": count, "reward": number},
}
