"""What the rows of a hybrid study hold, by their kind: looked at when a table is read."""

from __future__ import annotations

from tombola.runs.columns import Check, Schema, amount, count, fraction, number, optional, text, truth

_UNIT: dict[str, Check] = {"replicate": count, "unit": text}
_PLACE: dict[str, Check] = {**_UNIT, "network": text, "exit": optional(text), "features": optional(text)}
_COSTS: dict[str, Check] = {"flops_dense": count, "flops_effective": count, "density": fraction}

SCHEMA: Schema = {
    "forest": {
        **_PLACE,
        **_COSTS,
        **dict.fromkeys((f"{part}_{name}" for part in ("validation", "test") for name in ("accuracy", "f1")), fraction),
        **dict.fromkeys(("inputs", "train_examples", "test_examples", "trees", "nodes", "forest_bytes"), count),
        "cnn_bytes": count,
        "comparisons": amount,
        "onnx_checked": count,
        "onnx_error": number,
        "seconds_fit": amount,
    },
    "network": {
        **_UNIT,
        **_COSTS,
        **dict.fromkeys(("validation_accuracy", "test_accuracy"), optional(fraction)),
        "network": text,
        "bytes": count,
        "reason": optional(text),
    },
    "gate": {**_PLACE, "part": text, "threshold": number, "chosen": truth},
    "latency": {
        **_PLACE,
        "batch": count,
        "part": text,
        "engine": text,
        "reason": optional(text),
        "seconds": optional(lambda value: isinstance(value, list) and all(map(amount, value))),
    },
}
