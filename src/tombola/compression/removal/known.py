"""What is known of a network's numbers whatever goes in: units that masks leave without inputs are constants.

The network is run on an input of which nothing is known. NaN stands for what depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.fx.node import map_arg

from tombola.compression.removal.reading import Product
from tombola.compression.removal.rules import OVER_IMAGES, PER_CHANNEL, POINTWISE, UNCHANGED
from tombola.compression.removal.trace import Traced, operation

UNKNOWN = object()
"""In place of a tensor that has no NaN: integers and booleans that depend on the input."""
RESHAPING = (
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "unsqueeze", "squeeze", "transpose", "permute", "t"),
    *("expand", "repeat", "cat", "stack", "chunk", "split", "unbind", "select", "slice", "pad", "getitem"),
)
AS_THEY_ARE = {*UNCHANGED, *OVER_IMAGES, *PER_CHANNEL, *RESHAPING, "group_norm", "layer_norm", "mean", "sum", "amax"}
"""Operations that give NaN wherever they take some."""
PRODUCTS = {"linear": (0, 1, 2), "matmul": (0, 1, None), "mm": (0, 1, None), "addmm": (1, 2, 0)}
PRODUCTS |= {f"conv{kind}{axes}d": (0, 1, 2) for kind in ("", "_transpose") for axes in (1, 2, 3)}
"""Where inputs, weight and bias stand among the arguments."""


class Known:
    """The numbers of every node. `keeps`: which weights count, by name; one that does not reads nothing."""

    def __init__(self, traced: Traced, model: nn.Module, keeps: Mapping[str, Tensor]) -> None:
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self._keeps = keeps
        self._names = traced.tensors
        self.values: dict[Node, Any] = {}
        with torch.no_grad():
            for node in traced.graph.nodes:
                if node.op == "placeholder":
                    name = traced.tensors.get(node.name)
                    own = state[name].detach() if name else traced.constants.get(node.name)
                    self.values[node] = _nothing_known(node.meta["val"]) if own is None else own
                elif node.op == "call_function":
                    self.values[node] = self._called(node)

    def constants(self, product: Product) -> Tensor:
        """What each input of a product always is, 1-D; NaN where it is not always one number."""
        inputs = self.values[product.inputs]
        if inputs is UNKNOWN:
            return torch.full((product.inputs.meta["val"].shape[product.axis],), torch.nan)
        numbers = inputs.movedim(product.axis, 0).flatten(1)
        same = (numbers == numbers[:, :1]).all(1)
        return torch.where(same, numbers[:, 0], torch.nan)

    def _called(self, node: Node) -> Any:
        arguments = map_arg(node.args, lambda given: self.values[given])
        keywords = map_arg(node.kwargs, lambda given: self.values[given])
        given = [self.values[other] for other in node.all_input_nodes]
        tensors = [value for value in given if isinstance(value, Tensor)]
        if any(value is UNKNOWN for value in given):
            return _nothing_known(node.meta.get("val"))
        if not any(_unknown(tensor) for tensor in tensors) and not any(isinstance(v, (list, tuple)) for v in given):
            return node.target(*arguments, **keywords)  # type: ignore[operator]
        name = operation(node)
        if name in PRODUCTS:
            return self._product(node, list(arguments))
        if name in POINTWISE or name in AS_THEY_ARE:
            made = node.target(*arguments, **keywords)  # type: ignore[operator]
            return _spread(made, tensors) if name in POINTWISE else made
        return _nothing_known(node.meta.get("val"))

    def _product(self, node: Node, arguments: list[Any]) -> Any:
        """What depends on the input is what a kept weight reads of it."""
        inputs, weight, bias = PRODUCTS[operation(node)]
        read: Any = node.args[weight]
        keep = self._keeps.get(self._names.get(read.name, ""))
        if isinstance(arguments[weight], Tensor) and _unknown(arguments[weight]):
            return _nothing_known(node.meta["val"])
        open_ = arguments[inputs].isnan()
        arguments[inputs] = arguments[inputs].nan_to_num(0.0)
        made = node.target(*arguments)  # type: ignore[operator]
        arguments[inputs] = open_.to(made.dtype)
        keep = torch.ones_like(arguments[weight], dtype=torch.bool) if keep is None else keep
        arguments[weight] = keep.to(made.dtype)
        if bias is not None and len(arguments) > bias and arguments[bias] is not None:
            arguments[bias] = torch.zeros_like(arguments[bias])
        return made.masked_fill(node.target(*arguments) > 0, torch.nan)  # type: ignore[operator]


def _unknown(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(tensor.isnan().any())


def _spread(made: Any, tensors: list[Tensor]) -> Any:
    """Some operations give a number for NaN (a power of 0, a comparison)."""
    if not isinstance(made, Tensor) or not made.is_floating_point():
        return UNKNOWN
    for tensor in tensors:
        if tensor.is_floating_point():
            made = made.masked_fill(tensor.isnan().expand_as(made), torch.nan)
    return made


def _nothing_known(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_nothing_known(part) for part in value]
    if isinstance(value, Tensor) and value.is_floating_point():
        return torch.full(tuple(int(size) for size in value.shape), torch.nan, dtype=value.dtype)
    return UNKNOWN
