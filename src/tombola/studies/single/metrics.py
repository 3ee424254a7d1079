"""What is measured of a model before and after: accuracy, size, arithmetic; and what a pruning must have kept to."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from tombola.compression.cost import count_flops, count_size
from tombola.data import DataSet
from tombola.pruning import Masks, nearly_empty
from tombola.pruning.protect import names, protected_names
from tombola.pruning.prunable import weight_layouts
from tombola.pruning.structures import make_structure
from tombola.pruning.units import count_units, layers_with_units
from tombola.runs.columns import Check, Schema, amount, count, counts, fraction, number, optional, text, truth
from tombola.runs.rows import Row
from tombola.studies.base.averaging import averaged_columns
from tombola.studies.base.soundness import majority_accuracy
from tombola.studies.base.speed import LATENCY
from tombola.studies.single.config import Pruning
from tombola.training.device import placed
from tombola.training.metrics import evaluate

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
    "latency": {"stage": text, **LATENCY},
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
"""Of a child whose method was not refused."""

CHECKS = {
    "check_exact": "units removed as asked, to the unit",
    "check_held": "removed weights are 0",
    "check_nested": "nothing that the parent lacked came back",
    "check_parent": "the parent is bit-identical",
}


def stage_row(
    stage: str,
    model: nn.Module,
    masks: Masks,
    data: DataSet,
    device: str = "cpu",
    averaged: Mapping[str, Tensor] | None = None,
) -> Row:
    """The measurements of a model under its masks: fractions in [0, 1], sizes in bytes, FLOPs of one example.

    It is scored on `device`, and so is `averaged`, its state with averaged weights, where its training had some
    (columns `averaged_*`). A loss that is no finite number is None, and so are FLOPs of a forward pass that does not
    run without values.
    """
    with placed(model, device):
        validation, test = evaluate(model, data.validation), evaluate(model, data.test)
        average = {} if averaged is None else averaged_columns(model, averaged, data)
    size = count_size(model, masks)
    return {
        "kind": "stage",
        "stage": stage,
        "validation_loss": _finite(validation.loss),
        "validation_accuracy": validation.accuracy,
        "validation_f1": validation.f1,
        "validation_examples": validation.examples,
        "validation_majority_accuracy": majority_accuracy(data.validation.targets),
        "test_loss": _finite(test.loss),
        "test_accuracy": test.accuracy,
        "test_f1": test.f1,
        "test_examples": test.examples,
        "test_majority_accuracy": majority_accuracy(data.test.targets),
        "weights": masks.total,
        "kept": masks.kept,
        "sparsity": masks.sparsity,
        "parameters": size.parameters,
        "parameters_kept": size.kept,
        **_flops(model, masks, data),
        "bytes_dense": size.dense_bytes,
        "bytes_packed": size.packed_bytes,
        **{name: _finite(value) for name, value in average.items()},
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _flops(model: nn.Module, masks: Masks, data: DataSet) -> Row:
    try:
        flops = count_flops(model, data.input_shape, masks)
    except Exception:  # somebody's own forward pass may ask for values, which the counter's meta device lacks
        return {"flops_dense": None, "flops_effective": None, "flops_without_dead": None, "flops_unseen": []}
    return {
        "flops_dense": flops.dense,
        "flops_effective": flops.effective,
        "flops_without_dead": flops.without_dead,
        "flops_unseen": list(flops.unseen),
    }


def emptied_layers(model: nn.Module, masks: Masks, structure: str = "weight") -> list[str]:
    """The layers that the masks leave nearly empty, by the names of their weights."""
    return [layer.name for layer in nearly_empty(masks, weight_layouts(model), make_structure(structure))]


def layer_rows(stage: str, model: nn.Module, masks: Masks, structure: str = "weight") -> list[Row]:
    """One row per prunable layer."""
    emptied = set(emptied_layers(model, masks, structure))
    return [
        {
            "kind": "layer",
            "stage": stage,
            "layer": layer.name,
            "shape": list(layer.shape),
            "weights": layer.total,
            "kept": layer.kept,
            "nearly_empty": layer.name in emptied,
        }
        for layer in masks.table()
    ]


def unit_columns(model: nn.Module, masks: Masks, structure: str, spared: Collection[str]) -> Row:
    """What a structured target counts, beside the weights that result."""
    removed, units = units_removed(model, masks, structure, spared)
    return {"structure": structure, "units": units, "units_kept": units - removed}


def units_removed(model: nn.Module, masks: Masks, structure: str, spared: Collection[str] = ()) -> tuple[int, int]:
    """How many units of `structure` the masks remove, and how many there are; layers named in `spared` apart."""
    counts = [c for name, c in count_units(model, masks, make_structure(structure)).items() if name not in spared]
    return sum(count.removed for count in counts), sum(count.total for count in counts)


def check_child(
    model: nn.Module, masks: Masks, parent: Masks, pruning: Pruning, spared: Collection[str], parent_unchanged: bool
) -> dict[str, bool | None]:
    """What is checked of a pruning, and whether it is so; None where it makes no sense."""
    return {
        "check_exact": _is_exact(model, masks, pruning, spared),
        "check_held": masks.removed_nonzeros(model) == 0,
        "check_nested": masks <= parent,
        "check_parent": parent_unchanged,
    }


def _is_exact(model: nn.Module, masks: Masks, pruning: Pruning, spared: Collection[str]) -> bool | None:
    """Whether as many units are gone as asked; None for per-layer rates, which ask for no number in all."""
    structure = make_structure(pruning.structure)
    if structure.sparsity is not None:  # n:m gives every layer that it takes its sparsity
        taken = layers_with_units(model, structure)
        protected = protected_names(taken, [p for p in pruning.protect if any(names(p, name) for name in taken)])
        return all(structure.removals(masks[n].keep, taken[n]) == 0 for n in taken if n not in protected)
    removed, units = units_removed(model, masks, pruning.structure, spared)
    return None if pruning.sparsity is None else removed == round(pruning.sparsity * units)


def failed(checks: Mapping[str, Any]) -> list[str]:
    """What the checks that failed would have said."""
    return [meaning for check, meaning in CHECKS.items() if checks.get(check) is False]
