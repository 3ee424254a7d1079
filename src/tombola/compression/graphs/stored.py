"""Graphs in a sparse model's file. Kernels take a graph at its word, so that all of it is checked when it is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from tombola.compression.graphs.nodes import (
    MOST_READS,
    Combine,
    Convolution,
    Dense,
    Flatten,
    Graph,
    Mean,
    Node,
    Pool,
    Shape,
    Shortcut,
)
from tombola.compression.plans import Plan
from tombola.compression.stored_layers import (
    OF_CONVOLUTION,
    OF_LINEAR,
    StoredLayer,
    StoredPlan,
    plan_of,
    read_layer,
    stored_plan,
    tensors_of,
)
from tombola.kernels.pools import PoolKind
from tombola.kernels.windows import Window
from tombola.runs import limits
from tombola.runs.configs import Config

MOST_NUMBERS = 1 << 26
"""Of one value of one example: 256 MB."""
FURTHEST = 1 << 12
"""Rows or columns of a window, its step or its border."""

Length = Annotated[int, Field(ge=1, le=MOST_NUMBERS)]
Lengths = tuple[Length] | tuple[Length, Length, Length]
Positive = Annotated[int, Field(ge=1, le=FURTHEST)]
Distance = Annotated[int, Field(ge=0, le=FURTHEST)]
Reference = Annotated[int, Field(ge=0)]


class StoredWindow(Config):
    kernel: tuple[Positive, Positive]
    stride: tuple[Positive, Positive] = (1, 1)
    padding: tuple[Distance, Distance] = (0, 0)
    dilation: tuple[Positive, Positive] = (1, 1)
    pool: Literal[1, 2] = 1


class StoredNode(Config):
    """A node; fields that its kind does not have are None. `relu` is that of a combine."""

    kind: Literal["convolution", "dense", "pool", "mean", "combine", "shortcut", "flatten"]
    inputs: tuple[Reference] | tuple[Reference, Reference]
    shape: Lengths
    layer: StoredLayer | None = None
    window: StoredWindow | None = None
    groups: PositiveInt | None = None
    pool: PoolKind | None = None
    relu: bool = False
    step: Positive | None = None
    before: Distance | None = None

    @model_validator(mode="after")
    def _has_its_fields(self) -> StoredNode:
        needed = FIELDS[self.kind]
        given = {name for name in ALL_FIELDS if getattr(self, name) is not None}
        if given != needed or (self.relu and self.kind != "combine"):
            raise ValueError(f"a node {self.kind} has {', '.join(sorted(needed)) or 'nothing'}, not {sorted(given)}")
        return self


FIELDS: dict[str, set[str]] = {
    "convolution": {"layer", "window", "groups"},
    "dense": {"layer"},
    "pool": {"pool", "window"},
    "mean": set(),
    "combine": set(),
    "shortcut": {"step", "before"},
    "flatten": set(),
}
ALL_FIELDS = sorted(set().union(*FIELDS.values()))
KINDS: dict[type[Node], str] = {
    Convolution: "convolution",
    Dense: "dense",
    Pool: "pool",
    Mean: "mean",
    Combine: "combine",
    Shortcut: "shortcut",
    Flatten: "flatten",
}


class StoredGraph(Config):
    sites: tuple[str, ...] = Field(min_length=1)
    types: tuple[str, ...]
    shape: Lengths
    nodes: tuple[StoredNode, ...] = Field(min_length=1, max_length=limits.NODES)
    plans: tuple[StoredPlan, ...] = Field(max_length=limits.PLANS)

    @property
    def layers(self) -> tuple[StoredLayer, ...]:
        return tuple(node.layer for node in self.nodes if node.layer is not None)

    @model_validator(mode="after")
    def _fits_together(self) -> StoredGraph:
        shapes: list[Shape] = [self.shape]
        for number, node in enumerate(self.nodes):
            if any(value > number for value in node.inputs):
                raise ValueError(f"node {number + 1} reads what is computed after it")
            expected = _shape_of(node, [shapes[value] for value in node.inputs])
            if expected != node.shape or math.prod(node.shape) > MOST_NUMBERS:
                raise ValueError(f"node {number + 1}, {node.kind}, does not give {node.shape}")
            if node.window is not None and _with_border(_window(node), shapes[node.inputs[0]]) > MOST_NUMBERS:
                raise ValueError(f"node {number + 1} reads a border of {node.window.padding} around {node.inputs[0]}")
            shapes.append(node.shape)
        if not self.plans:
            raise ValueError("it has no plan")
        kinds = [OF_LINEAR if node.kind == "dense" else OF_CONVOLUTION for node in self.nodes if node.layer is not None]
        for plan in self.plans:
            plan.check_kernels(kinds)
        return self


def _shape_of(node: StoredNode, inputs: Sequence[Shape]) -> Shape | None:
    """The shape that a node gives for inputs of these shapes; None where it does not take them."""
    first, single, flat = inputs[0], len(inputs) == 1, len(inputs[0]) == 1
    if node.kind == "dense":
        assert node.layer is not None
        return (node.layer.outputs,) if single and first == (node.layer.inputs,) else None
    if node.kind == "flatten":
        return (math.prod(first),) if single else None
    if flat:
        return None
    match node.kind:
        case "convolution":
            return _shape_of_convolution(node, inputs)
        case "pool":
            window = _window(node)
            padded = all(2 * padding <= kernel for padding, kernel in zip(window.padding, window.kernel, strict=True))
            few = math.prod(window.kernel) * math.prod(node.shape[1:]) <= MOST_READS
            simple = single and padded and few and window.pool == 1 and window.dilation == (1, 1)
            return (first[0], *_outputs(window, first)) if simple else None
        case "mean":
            return (first[0], 1, 1) if single else None
        case "combine":
            return first if len(set(inputs)) == 1 else None
        case "shortcut":
            assert node.step is not None
            assert node.before is not None
            fits = single and node.before + first[0] <= node.shape[0]
            return (node.shape[0], -(-first[1] // node.step), -(-first[2] // node.step)) if fits else None
    return None


def _with_border(window: Window, shape: Shape) -> int:
    """Numbers of a value with the padding around it."""
    border = 2 * max(window.padding)
    return shape[0] * (shape[1] + border) * (shape[2] + border)


def _shape_of_convolution(node: StoredNode, inputs: Sequence[Shape]) -> Shape | None:
    assert node.layer is not None
    assert node.groups is not None
    window, channels = _window(node), inputs[0][0]
    area = math.prod(window.kernel)
    whole = node.layer.outputs % node.groups == channels % node.groups == 0
    if not whole or node.layer.inputs != channels // node.groups * area:
        return None
    shape = (node.layer.outputs, *_outputs(window, inputs[0]))
    added = len(inputs) == 1 or (inputs[1] == shape and window.pool == 1)
    return shape if added else None


def _window(node: StoredNode) -> Window:
    assert node.window is not None
    return Window(**vars(node.window))


def _outputs(window: Window, shape: Shape) -> tuple[int, int]:
    return window.outputs(shape[1], shape[2])


def stored_graph(graph: Graph, plans: Sequence[Plan]) -> StoredGraph:
    """A graph as it is written, without its numbers."""
    return StoredGraph(
        sites=graph.sites,
        types=graph.types,
        shape=graph.shape,
        nodes=tuple(map(_stored_node, graph.nodes)),
        plans=tuple(map(stored_plan, plans)),
    )


def _stored_node(node: Node) -> StoredNode:
    fields: dict[str, object] = {}
    if isinstance(node, Convolution | Dense):
        layer = node.layer
        fields["layer"] = StoredLayer(name=layer.name, outputs=layer.outputs, inputs=layer.inputs, relu=layer.relu)
    if isinstance(node, Convolution | Pool):
        fields["window"] = StoredWindow(**vars(node.window))
    match node:
        case Convolution():
            fields["groups"] = node.groups
        case Pool():
            fields["pool"] = node.kind
        case Combine():
            fields["relu"] = node.relu
        case Shortcut():
            fields |= {"step": node.step, "before": node.before}
    return StoredNode.model_validate({"kind": KINDS[type(node)], "inputs": node.inputs, "shape": node.shape, **fields})


def tensors_of_graph(graph: Graph, prefix: str) -> dict[str, Tensor]:
    """The numbers of a graph, by names that begin with `prefix`."""
    tensors: dict[str, Tensor] = {}
    for number, node in enumerate(graph.nodes):
        if isinstance(node, Convolution | Dense):
            tensors |= tensors_of(node.layer, f"{prefix}{number}/")
        elif isinstance(node, Combine):
            tensors[f"{prefix}{number}/scale"] = torch.from_numpy(node.scale)
            tensors[f"{prefix}{number}/shift"] = torch.from_numpy(node.shift)
    return tensors


def graph_of(stored: StoredGraph, prefix: str, tensors: dict[str, Tensor]) -> tuple[Graph, list[Plan]]:
    """A graph and its plans, as they were read; its numbers are taken out of `tensors`."""
    nodes = tuple(_node(node, f"{prefix}{number}/", tensors) for number, node in enumerate(stored.nodes))
    return Graph(stored.sites, stored.types, stored.shape, nodes), list(map(plan_of, stored.plans))


def _node(stored: StoredNode, prefix: str, tensors: dict[str, Tensor]) -> Node:
    common = (stored.inputs, stored.shape)
    if stored.layer is not None:
        shape: Shape = (stored.layer.outputs, stored.layer.inputs)
        if stored.kind == "dense":
            return Dense(*common, read_layer(stored.layer, shape, prefix, tensors))
        window = _window(stored)
        assert stored.groups is not None
        shape = (shape[0], shape[1] // math.prod(window.kernel), *window.kernel)
        return Convolution(*common, read_layer(stored.layer, shape, prefix, tensors), window, stored.groups)
    if stored.kind == "pool":
        assert stored.pool is not None
        return Pool(*common, stored.pool, _window(stored))
    if stored.kind == "combine":
        scale, shift = (_by_channel(tensors.pop(prefix + name), stored.shape[0]) for name in ("scale", "shift"))
        return Combine(*common, scale, shift, bool(stored.relu))
    if stored.kind == "shortcut":
        assert stored.step is not None
        return Shortcut(*common, stored.step, stored.before or 0)
    return Mean(*common) if stored.kind == "mean" else Flatten(*common)


def _by_channel(numbers: Tensor, channels: int) -> np.ndarray:
    if numbers.dtype != torch.float32 or numbers.shape != (channels,):
        raise ValueError(f"{tuple(numbers.shape)} numbers of {numbers.dtype} for {channels} channels")
    return numbers.numpy()


def modules_of(model: nn.Module, sites: Sequence[str]) -> list[str]:
    """The names of all modules in these, in the order of a graph's `types`."""
    return [f"{site}.{name}".strip(".") for site in sites for name, _ in model.get_submodule(site).named_modules()]
