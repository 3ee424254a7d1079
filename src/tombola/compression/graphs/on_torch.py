"""Nodes as torch computes them: for the whole graph, and for single convolutions between steps of machine code."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tombola.compression.graphs.nodes import Combine, Convolution, Dense, Flatten, Mean, Node, Pool, Shortcut
from tombola.kernels.pools import PoolKind
from tombola.kernels.program import Where
from tombola.kernels.window_steps import Layout
from tombola.kernels.windows import ImageLayout


def computed(node: Node, inputs: Sequence[Tensor], weight: Tensor | None) -> Tensor:
    """What a node makes of its inputs (n, ...); `weight` is the dense one of its layer, if it has one."""
    x = inputs[0]
    match node:
        case Convolution():
            assert weight is not None
            return _convolved(node, x, weight, inputs[1] if len(inputs) > 1 else None)
        case Dense():
            assert weight is not None
            y = functional.linear(x, weight, torch.from_numpy(node.layer.bias))
            return y.relu_() if node.layer.relu else y
        case Pool():
            window = node.window
            if node.kind is PoolKind.MAX:
                return functional.max_pool2d(x, window.kernel, window.stride, window.padding)
            return functional.avg_pool2d(x, window.kernel, window.stride, window.padding)
        case Mean():
            return x.mean((2, 3), keepdim=True)
        case Combine():
            y = torch.addcmul(_by_channel(node.shift), x, _by_channel(node.scale))
            y = y.add_(inputs[1]) if len(inputs) > 1 else y
            return y.relu_() if node.relu else y
        case Shortcut():
            behind = node.shape[0] - node.before - x.shape[1]
            return functional.pad(x[:, :, :: node.step, :: node.step], (0, 0, 0, 0, node.before, behind))
        case Flatten():
            return x.flatten(1)
    raise TypeError(f"no node of a graph: {node}")


def _by_channel(numbers: object) -> Tensor:
    return torch.as_tensor(numbers)[:, None, None]


def _convolved(node: Convolution, x: Tensor, weight: Tensor, other: Tensor | None) -> Tensor:
    window, layer = node.window, node.layer
    bias = torch.from_numpy(layer.bias)
    y = functional.conv2d(x, weight, bias, window.stride, window.padding, window.dilation, node.groups)
    if other is not None:
        y += other
    if layer.relu:
        y.relu_()
    return functional.max_pool2d(y, window.pool) if window.pool > 1 else y


class TorchConvolution:
    """A convolution on torch between the steps of programs; its numbers lie at places of the call, as theirs do."""

    def __init__(
        self, node: Convolution, weight: Tensor, layouts: tuple[Layout, Layout], x: Where, y: Where, gate: Where | None
    ) -> None:
        self.node, self.weight, (self.own, self.result) = node, weight, layouts
        self.x, self.y, self.gate = x, y, gate

    def __call__(self, x: int, y: int, workspace: int) -> None:
        places = (x, y, workspace)
        other = None if self.gate is None else examples_at(places, self.gate, self.result)
        found = _convolved(self.node, examples_at(places, self.x, self.own), self.weight, other)
        examples_at(places, self.y, self.result).copy_(found)


def examples_at(places: Sequence[int], where: Where, layout: Layout) -> Tensor:
    """What lies there as (n, channels, height, width); no copy."""
    numbers = (ctypes.c_float * layout.size).from_address(places[int(where.place)] + 4 * where.offset)
    flat = torch.frombuffer(numbers, dtype=torch.float32, count=layout.size)
    shape = (layout.channels, layout.height, layout.width)
    if isinstance(layout, ImageLayout):
        return flat.as_strided((1, *shape), (layout.size, layout.plane, layout.pitch, 1))
    examples = layout.examples
    strides = (1, layout.plane, layout.columns * examples, examples)
    return flat.as_strided((examples, *shape), strides, layout.at(0, 0))
