"""What products do to units: they read one dimension and write another; of attention heads go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.fx import Node

from tombola.compression.removal.labels import Dims, has_units, unlabelled
from tombola.compression.removal.reading import Product, Reading, rule, unknown
from tombola.compression.removal.trace import operation, shape_of


@rule("linear")
def linear(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    inputs, weight, bias = (*arguments, None)[:3]
    return _product(reading, node, inputs, weight, bias, axis=len(reading.of(inputs)) - 1, dim=1, rows=0)


@rule("addmm")
def addmm(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    bias, inputs, weight = arguments[:3]
    return _product(reading, node, inputs, weight, bias, axis=1, dim=0, rows=1)


@rule("matmul", "mm", "bmm")
def matmul(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    """With a weight as `linear`; of two activations the dimensions before the last two go together."""
    left, right = arguments[:2]
    if reading.name(right) is not None and len(reading.of(right)) == 2:
        return _product(reading, node, left, right, None, axis=len(reading.of(left)) - 1, dim=0, rows=1)
    one, other = reading.of(left), reading.of(right)
    if min(len(one), len(other)) < 2:
        return unknown(reading, node)
    if has_units(one[-1]) or has_units(other[-2]):
        lock = reading.lock(node, "a product of two activations sums over them")
        reading.labels.lock(one[-1], lock)
        reading.labels.lock(other[-2], lock)
    return [*_batch(reading, node, [one, other]), one[-2], other[-1]]


@rule("baddbmm")
def masked_matmul(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    return matmul(reading, node, arguments[1:])


@rule("scaled_dot_product_attention")
def attention(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    """Heads go together; what lies within a head stays."""
    query, key, value = (reading.of(tensor) for tensor in arguments[:3])
    lock = reading.lock(node, "attention sums over them")
    for dims in (query, key, value):
        reading.labels.lock(dims[-1], lock)
        reading.labels.lock(dims[-2], lock)
    return [*_batch(reading, node, [query, key, value]), *(unlabelled(size) for size in shape_of(node)[-2:])]


def _batch(reading: Reading, node: Node, tensors: Sequence[Dims]) -> Dims:
    """All dimensions but the last two of tensors that are multiplied matrix by matrix."""
    shape = shape_of(node)[:-2]
    made = [unlabelled(size) for size in shape]
    lock = reading.lock(node, "attention meets a tensor whose size is fixed")
    for first in (True, False):
        for dims in tensors:
            for place, dim in enumerate(dims[:-2], start=len(shape) - len(dims) + 2):
                if len(dim) != shape[place]:
                    continue
                if not first:
                    reading.labels.unite(made[place], dim, lock)
                elif not has_units(made[place]):
                    made[place] = dim
    return made


def _product(
    reading: Reading, node: Node, inputs: Any, weight: Any, bias: Any, *, axis: int, dim: int, rows: int
) -> Dims:
    """A Linear layer, whichever way its weight lies."""
    name = reading.name(weight)
    if name is None:
        return unknown(reading, node, "a product with a weight that the model computes")
    given, labels = reading.of(inputs), reading.of(weight)
    reading.labels.unite(given[axis], labels[dim], reading.lock(node, "it reads inputs whose number is fixed"))
    _add_bias(reading, node, bias, labels[rows])
    reading.written(weight, rows)
    reading.products.append(Product(node, inputs, axis, name, dim, rows, reading.name(bias)))
    return [*given[:axis], labels[rows]]


def _add_bias(reading: Reading, node: Node, bias: Any, outputs: Any) -> None:
    if bias is not None:
        reading.labels.unite(reading.of(bias)[-1], outputs, reading.lock(node, "its bias is fixed"))


@rule("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def convolution(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    """Grouped ones lose the same places of every group; depth-wise ones pass every channel on."""
    inputs, weight, bias = (*arguments, None)[:3]
    name, transposed = reading.name(weight), operation(node).startswith("conv_transpose")
    if name is None:
        return unknown(reading, node, "a convolution with a weight that the model computes")
    given, labels = reading.of(inputs), reading.of(weight)
    if len(given) != len(labels):
        return unknown(reading, node, "a convolution without a batch")
    not_over_units(reading, node, given)
    groups = shape_of(node)[1] // labels[1].size if transposed else len(given[1]) // labels[1].size
    outward, inward = (1, 0) if transposed else (0, 1)
    lock = reading.lock(node, "it reads inputs whose number is fixed")
    kernel = reading.lock(node, "they are positions of a kernel")
    for positions in labels[2:]:
        reading.labels.lock(positions, kernel)
    out = labels[0] if not transposed else np.tile(labels[1], groups)
    if groups > 1 and not transposed and labels[1].size == 1:  # depth-wise
        reading.labels.unite(np.repeat(given[1], len(out) // groups), out, lock)
    elif groups > 1:
        by_group = given[1].reshape(groups, -1)
        reading.labels.unite_all(by_group)
        own = labels[inward].reshape(groups, -1) if transposed else np.tile(labels[1], (groups, 1))
        reading.labels.unite(by_group.reshape(-1), own.reshape(-1), lock)
        reading.labels.unite_all(out.reshape(groups, -1))
        reading.products.append(Product(node, inputs, 1, name, inward, outward, reading.name(bias)))
    else:
        reading.labels.unite(given[1], labels[inward], lock)
        reading.products.append(Product(node, inputs, 1, name, inward, outward, reading.name(bias)))
    _add_bias(reading, node, bias, out)
    reading.written(weight, outward)
    return [given[0], out, *(unlabelled(size) for size in shape_of(node)[2:])]


def not_over_units(reading: Reading, node: Node, dims: Dims) -> None:
    """Units that lie where pixels are expected stay."""
    for dim in dims[2:]:
        reading.labels.lock(dim, reading.lock(node, f"{operation(node)} goes over them as over pixels"))
