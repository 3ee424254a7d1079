"""What the rows of a lottery hold, by their kind: looked at when a table is read."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.runs.columns import Check, Schema, amount, count, counts, fraction, number, optional, text, truth
from tombola.studies.base.speed import LATENCY

_UNIT = {"replicate": count, "rewind": optional(text), "round": count, "branch": text}
_SCORES = {
    f"{part}_{name}": check
    for part in ("train", "validation", "test")
    for name, check in {"accuracy": fraction, "loss": number, "f1": fraction, "examples": count}.items()
}

SCHEMA: Schema = {
    "training": {
        **_UNIT,
        **_SCORES,
        "seed": count,
        "density": fraction,
        "kept": count,
        "total": count,
        "iterations": count,
        "iterations_trained": count,
        "early_stop_iteration": count,
        "early_stop_validation_accuracy": fraction,
        "early_stop_test_accuracy": fraction,
        "early_bird_iteration": optional(count),
        "flops_dense": count,
        "flops_effective": count,
        "engine": text,
        "check_sparsity": optional(truth),
        "check_held": optional(truth),
        "check_rewound": optional(truth),
        "check_nested": optional(truth),
        "seconds": amount,
    },
    "layer": {**_UNIT, "layer": text, "kept": count, "total": count},
    "connections": {**_UNIT, "layer": text, "shape": counts, "counts": counts},
    "histogram": {**_UNIT, "layer": text, "limit": amount, "before": counts, "after": counts},
    "evaluation": {**_UNIT, "iteration": count, "loss": number, "accuracy": fraction},
    "overlap": {**_UNIT, "other": count, "density": fraction, "shared": fraction, "shared_by_chance": amount},
    "look": {**_UNIT, "replicates": count},
    "latency": {**_UNIT, **LATENCY, "density": fraction},
}


def schema_of_task(measures: Sequence[str], compares: str) -> Schema:
    """The same of a task of one's own: its measures in place of accuracy and F1, and FLOPs where there are some.

    Looks have what networks are compared by; of further measures only some tasks' (`metrics`).
    """
    scores: dict[str, Check] = {}
    for part in ("train", "validation", "test"):
        scores |= {f"{part}_{name}": number for name in ("loss", *measures)} | {f"{part}_examples": count}
    ends = {f"early_stop_{part}_{compares}": number for part in ("validation", "test")}
    common = {key: check for key, check in SCHEMA["training"].items() if "accuracy" not in key and key not in _SCORES}
    flops = dict.fromkeys(("flops_dense", "flops_effective"), optional(count))
    looks = {key: check for key, check in SCHEMA["evaluation"].items() if key != "accuracy"}
    return {
        **SCHEMA,
        "training": {**common, **scores, **ends, **flops},
        "evaluation": {**looks, compares: number},
    }
