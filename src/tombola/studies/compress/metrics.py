"""What is measured of a candidate and of the parent, and the rows that hold it.

A `candidate` row is of one file: how accurate it is on validation, and what it costs on any machine. A `cost` row has
what a machine takes for it, a `test` row what is looked at once, at the end.
"""

from __future__ import annotations

import torch
from torch import nn

from tombola.compression.cost import count_flops, count_size
from tombola.compression.export.exported import content_of
from tombola.data import Examples
from tombola.runs.columns import Check, Schema, amount, count, fraction, optional, text, texts, truth
from tombola.runs.rows import Row
from tombola.studies.base.soundness import majority_accuracy
from tombola.studies.given_model import GivenModel
from tombola.training.metrics import predict

UNIT = ("kind", "structure", "distribution", "level")
KEY: dict[str, Check] = {
    "structure": optional(text),
    "distribution": optional(text),
    "level": optional(count),
    "precision": text,
}
COUNTED: dict[str, Check] = {
    "params": count,
    "bytes": count,
    "flops": optional(count),
    "validation_accuracy": fraction,
    "validation_examples": count,
}
SCHEMA: Schema = {
    "parent": {**COUNTED, "validation_majority_accuracy": fraction},
    "candidate": {**KEY, "sparsity": fraction, "refused": optional(text), "within": truth},
    "cost": {
        **KEY,
        "batch": count,
        "reason": optional(text),
        "memory": optional(amount),
        "memory_parent": optional(amount),
    },
    "test": {
        "parent_accuracy": optional(fraction),
        "accuracy": optional(fraction),
        "examples": count,
        "lost": count,
        "won": count,
    },
}
MADE: dict[str, Check] = {**COUNTED, "engine": text, "file": text, "nearly_empty": texts, "sha256": text}
"""Of a candidate that was not refused."""
CHECKS = {"check_exact": "as many weights are gone as asked", "check_held": "removed weights are 0"}


def parent_row(given: GivenModel) -> Row:
    """What the parent is and costs: the bytes are those of its tensors in float32."""
    targets = given.data.validation.targets
    return {
        "kind": "parent",
        **dict.fromkeys(UNIT[1:]),
        "params": count_size(given.network, given.masks).kept,
        "bytes": len(content_of(given.network)),
        "flops": flops_of(given),
        **accuracy_of(given.network, given.data.validation),
        "validation_majority_accuracy": majority_accuracy(targets),
    }


def accuracy_of(network: nn.Module, examples: Examples) -> Row:
    """Columns of accuracy on validation examples."""
    right = answered(network, examples)
    return {"validation_accuracy": int(right.sum()) / len(right), "validation_examples": len(right)}


def answered(network: nn.Module, examples: Examples) -> torch.Tensor:
    """Which examples a network answers correctly, (n,), boolean."""
    return predict(network, examples)[1] == examples.targets


def flops_of(given: GivenModel) -> int | None:
    """FLOPs of one example without removed weights; None of a forward pass that asks for values."""
    try:
        return count_flops(given.network, given.data.input_shape, given.masks).effective
    except Exception:  # somebody's own forward pass; the counter's copy has no values
        return None


def test_row(parent: nn.Module, chosen: nn.Module, examples: Examples) -> Row:
    """The one look at the test examples; `lost` are those that the parent alone answers correctly, `won` the others."""
    before, after = answered(parent, examples), answered(chosen, examples)
    return {
        **untested_row(),
        "parent_accuracy": int(before.sum()) / len(before),
        "accuracy": int(after.sum()) / len(after),
        "examples": len(before),
        "lost": int((before & ~after).sum()),
        "won": int((after & ~before).sum()),
    }


def untested_row() -> Row:
    """Where nothing was chosen, the test examples are not looked at."""
    return {
        "kind": "test",
        **dict.fromkeys(UNIT[1:]),
        **dict.fromkeys(("parent_accuracy", "accuracy")),
        **dict.fromkeys(("examples", "lost", "won"), 0),
    }
