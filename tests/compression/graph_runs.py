"""Graphs run on kernels of a test's choice, in memory that holds nothing but NaN before."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from tombola import Masks
from tombola.compression.calls import Call, Panels, Part
from tombola.compression.graphs.arrays import GraphArrays
from tombola.compression.graphs.nodes import Convolution, Graph
from tombola.compression.graphs.tracing import trace
from tombola.compression.plans import Choice, Form, Kernel, Plan


def traced(model: nn.Module, masks: Masks, shape: Sequence[int]) -> GraphArrays:
    """The whole model, which has its masks already, as a graph for inputs (n, *shape)."""
    keeps = {id(parameter): masks[name].keep for name, parameter in model.named_parameters() if name in masks}
    return GraphArrays(trace([("", model)], keeps, (1, *shape)))


@dataclass(frozen=True)
class Way:
    """How a graph runs: the kernel of its convolutions by `channels` at a time, that of its Linear layers.

    Where rows are no whole vectors, ALL_WINDOWS takes the place of SHIFTED_ROWS.
    """

    form: Form
    convolution: Kernel
    linear: Kernel
    channels: int = 1
    panel: int = 16

    def plan(self, arrays: GraphArrays, rows: int) -> Plan:
        choices = tuple(self._choice(arrays.graph, number) for number in arrays.numbers)
        return Plan(rows, rows, self.form, choices, panel=self.panel)

    def _choice(self, graph: Graph, number: int) -> Choice:
        node, shapes = graph.nodes[number], graph.shapes()
        if not isinstance(node, Convolution):
            return Choice(self.linear, 5) if self.linear == Kernel.PANEL else Choice(self.linear)
        return Choice(self.convolution, min(self.channels, shapes[node.inputs[0]][0]))

    def __str__(self) -> str:
        panel = f" of {self.panel}" if self.form == Form.PANELS else ""
        return f"{self.convolution} by {self.channels}{panel}, {self.linear}"


BY_IMAGE = [
    Way(Form.VECTORS, Kernel.SHIFTED_ROWS, Kernel.ROWS, 1),
    Way(Form.VECTORS, Kernel.SHIFTED_ROWS, Kernel.COLUMNS, 3),
    Way(Form.VECTORS, Kernel.ALL_WINDOWS, Kernel.DENSE_COLUMNS, 2),
    Way(Form.VECTORS, Kernel.ALL_WINDOWS, Kernel.SIDE_BY_SIDE, 4),
    Way(Form.VECTORS, Kernel.ALL_WINDOWS, Kernel.DENSE, 100),
    Way(Form.VECTORS, Kernel.DENSE, Kernel.ROWS),
]
BY_PANEL = [
    Way(Form.PANELS, Kernel.PANEL, Kernel.PANEL, 1, panel=16),
    Way(Form.PANELS, Kernel.PANEL, Kernel.DENSE, 3, panel=16),
    Way(Form.PANELS, Kernel.PANEL, Kernel.PANEL, 2, panel=64),
    Way(Form.PANELS, Kernel.PANEL, Kernel.PANEL, 100, panel=64),
    Way(Form.PANELS, Kernel.DENSE, Kernel.PANEL, panel=64),
]
WAYS = [*BY_IMAGE, *BY_PANEL]


def call_in(arrays: GraphArrays, plan: Plan, rows: int) -> Call:
    """As `call_of`, but with the workspace never on the stack, where nothing could be put before."""
    if plan.form == Form.VECTORS or rows < plan.panel:
        return Part(arrays.compile(plan, rows))
    whole = Part(arrays.compile(plan, plan.panel))
    return whole if rows == plan.panel else Panels(arrays, plan, rows, whole)


def outputs_of(call: Call, arrays: GraphArrays, x: Tensor) -> Tensor:
    """What a call makes of inputs (n, ...)."""
    y = torch.full((len(x), *arrays.graph.nodes[-1].shape), torch.nan)
    call(x.data_ptr(), y.data_ptr())
    return y


@contextmanager
def memory_of_nan() -> Iterator[None]:
    """Within the block all memory that torch gives is NaN at first."""
    empty = torch.empty

    def poisoned(*size: int, **options: object) -> Tensor:
        return empty(*size, **options).fill_(torch.nan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", poisoned)
        yield


def exact(model: nn.Module, x: Tensor) -> Tensor:
    """What the model makes of x in float64."""
    with torch.no_grad():
        return copy.deepcopy(model).double()(x.double())


def assert_close(found: Tensor, expected: Tensor) -> None:
    """To 1e-5 of the largest output, as `sparsify` promises, NaN where NaN is expected."""
    assert found.shape == expected.shape
    assert torch.equal(found.isnan(), expected.isnan())
    apart = (found.double() - expected).nan_to_num(0).abs().max().item() if found.numel() else 0.0
    assert apart <= 1e-5 * max(1.0, expected.nan_to_num(0).abs().max().item())
