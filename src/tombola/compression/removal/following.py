"""A traced network followed from front to back, operation by operation."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.fx import Node

from tombola.compression.removal import rules as _rules  # files the rules
from tombola.compression.removal.labels import Dims, Lock, has_units, unlabelled
from tombola.compression.removal.reading import Reading, flat, lock_all, rules, unknown, without_units
from tombola.compression.removal.trace import Traced, operation, shape_of

__all__ = ["_rules", "read"]


def read(traced: Traced, *, fixed_sizes: bool = False) -> Reading:
    """Goes through all operations once."""
    reading = Reading(traced, fixed_sizes)
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            reading.values[node] = _placeholder(reading, node)
        elif node.op == "call_function":
            reading.values[node] = _called(reading, node)
        elif node.op == "output":
            for given in node.all_input_nodes:
                lock_all(reading, given, Lock("they are the model's own outputs"))
    return reading


def _placeholder(reading: Reading, node: Node) -> Dims:
    name = reading.traced.tensors.get(node.name)
    shape = shape_of(node) if isinstance(node.meta.get("val"), Tensor) else ()
    if name is None:
        return [unlabelled(size) for size in shape]
    dims = [reading.places.get((name, dim)) for dim in range(len(shape))]
    if any(dim is None for dim in dims):
        dims = [reading.labels.fresh(size) for size in shape]
        reading.places.update({(name, dim): labels for dim, labels in enumerate(dims) if labels is not None})
    return [labels for labels in dims if labels is not None]


def _called(reading: Reading, node: Node) -> Any:
    if node.target.__name__ == "getitem":  # type: ignore[union-attr]
        whole = reading.values[node.args[0]]  # type: ignore[index]
        return whole[node.args[1]] if whole and isinstance(whole[0], list) else whole
    name = operation(node)
    if not any(has_units(dim) for given in node.all_input_nodes for dim in flat(reading.values.get(given))):
        return without_units(node)
    if name in rules:
        return rules.get(name)(reading, node, node.args)
    return unknown(reading, node)
