"""What the rows of `train`, `prune` and `compare` hold, by their kind: looked at when a table is read."""

from __future__ import annotations

from tombola.runs.columns import Check, Schema, amount, count, counts, fraction, number, optional, text, truth

_MEASURED: dict[str, Check] = {
    "validation_loss": optional(number),
    "validation_accuracy": fraction,
    "validation_f1": fraction,
    "test_loss": optional(number),
    "test_accuracy": fraction,
    "test_f1": fraction,
    "test_examples": count,
    "weights": count,
    "kept": count,
    "parameters": count,
    "parameters_kept": count,
    "flops_dense": optional(count),
    "flops_effective": optional(count),
    "bytes_dense": count,
    "bytes_packed": count,
}

SCHEMA: Schema = {
    "stage": {"stage": text, **_MEASURED, "sparsity": fraction},
    "layer": {"stage": text, "layer": text, "shape": counts, "weights": count, "kept": count},
    "evaluation": {
        "training": count,
        "iteration": count,
        "validation_loss": number,
        "validation_accuracy": fraction,
    },
    "latency": {
        "stage": text,
        "batch": count,
        "engine": text,
        "reason": optional(text),
        "seconds": optional(lambda value: isinstance(value, list) and all(map(amount, value))),
    },
}
"""Of `train` and `prune`."""

_UNIT: dict[str, Check] = {
    "replicate": count,
    "structure": optional(text),
    "distribution": optional(text),
    "sparsity": optional(fraction),
    "criterion": optional(text),
}

GRID_SCHEMA: Schema = {
    "stage": {**_MEASURED, **_UNIT, "seconds": amount},
    "way": {**_UNIT, "refused": optional(text)},
}
"""Of `compare`."""

MADE: dict[str, Check] = {
    **_MEASURED,
    **dict.fromkeys(("check_exact", "check_held", "check_nested", "check_parent"), optional(truth)),
    "pruned_test_accuracy": fraction,
    "pruned_validation_accuracy": fraction,
    "units": count,
    "units_kept": count,
    "seconds": amount,
}
"""Of a way that was not refused."""
