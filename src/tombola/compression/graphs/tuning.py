"""Tuning of graphs: every layer's candidates are measured on this machine, then whole plans beside torch.

A convolution takes as long whatever its inputs are, so it is measured by itself on random numbers; Linear layers are
measured on real activations, as in chains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tombola.compression.compiled import width_of
from tombola.compression.graphs.arrays import GraphArrays
from tombola.compression.graphs.by_image import image_of, unpooled
from tombola.compression.graphs.by_panel import panel_of
from tombola.compression.graphs.lowering import Bare, lower_bare
from tombola.compression.graphs.nodes import Convolution, Dense, Graph
from tombola.compression.graphs.places import borders
from tombola.compression.plans import PANEL, Choice, Form, Kernel, Plan
from tombola.compression.tuning import (
    VECTORS_UP_TO,
    best_of,
    even,
    fastest,
    panel_choice,
    vector_choice,
)
from tombola.kernels.convolutions import columns_of_all, columns_of_rows, most_channels
from tombola.kernels.target import host
from tombola.kernels.windows import ImageLayout

FEWEST_FOR_PANELS = 4
"""Examples from which a panel is tried: below it most of its vectors would be empty."""
WIDE_PANELS_UP_TO = 1 << 20
"""Floats of the largest value of a wide panel; beyond it caches hold no panel of 64 any more."""
COPIES = (1 << 13, 1 << 15, 1 << 16, 1 << 17, 1 << 19)
"""Floats that the copies of a block of channels take: with 4 bytes each from a first-level cache to a large second."""
NEAR = (1 << 12, 1 << 14, 1 << 16)
"""Floats of a panel's block of channels that the windows of a few outputs see."""
LARGE = 1 << 20
"""Weights from which a layer is measured with fewer repetitions."""


def tune_graph(arrays: GraphArrays, example: Tensor, batch: int, rows: int) -> Plan:
    """The fastest plan for `rows` examples, `example` (n, ...) being what such look like."""
    x = example[torch.arange(rows) % len(example)].contiguous()
    with torch.no_grad():
        plans = []
        panels = _panels(arrays.graph, rows) if rows >= FEWEST_FOR_PANELS and _fit_panels(arrays) else []
        if rows <= VECTORS_UP_TO or not panels:
            plans.append(_by_image(arrays, example, batch, rows))
        plans += [_by_panel(arrays, x, batch, panel) for panel in panels]
        plans += [other for plan in plans if (other := _without_dense(arrays, plan)) != plan]
        return best_of(arrays, plans, x)


def _fit_panels(arrays: GraphArrays) -> bool:
    """Whether all convolutions have a sparse kernel for panels: not on images of more than some 250 × 250."""
    convolutions = [number for number in arrays.numbers if isinstance(arrays.graph.nodes[number], Convolution)]
    return all(len(panel_choices(arrays, number, host().lanes)) > 1 for number in convolutions)


def _panels(graph: Graph, rows: int) -> list[int]:
    """Examples that may go together."""
    largest = max(torch.Size(shape).numel() for shape in graph.shapes())
    wide = rows >= PANEL and largest * PANEL <= WIDE_PANELS_UP_TO
    return [host().lanes, *([PANEL] if wide else [])]


def _by_image(arrays: GraphArrays, example: Tensor, batch: int, rows: int) -> Plan:
    some = example[torch.arange(VECTORS_UP_TO) % len(example)]
    values = arrays.values_on_torch(some) if arrays.linear.layers else []
    choices = []
    for number in arrays.numbers:
        node = arrays.graph.nodes[number]
        if isinstance(node, Dense):
            inputs = values[node.inputs[0]].contiguous()
            choices.append(vector_choice(arrays.linear, arrays.linear_number(number), inputs, rows))
        else:
            own, result = _images_of(arrays.graph, number)
            candidates = image_choices(arrays, number, own, result)
            choices.append(_measured(arrays, number, candidates, Form.VECTORS, 1, rows))
    return Plan(batch, rows, Form.VECTORS, tuple(choices))


def _by_panel(arrays: GraphArrays, x: Tensor, batch: int, panel: int) -> Plan:
    rows = min(len(x), panel)
    values = arrays.values_on_torch(x[:rows]) if arrays.linear.layers else []
    choices = []
    for number in arrays.numbers:
        node = arrays.graph.nodes[number]
        if isinstance(node, Dense):
            inputs = x.new_zeros(node.layer.inputs, width_of(rows))
            inputs[:, :rows] = values[node.inputs[0]].T
            choices.append(panel_choice(arrays.linear, arrays.linear_number(number), inputs, len(x) / rows))
        else:
            candidates = panel_choices(arrays, number, width_of(rows))
            choices.append(_measured(arrays, number, candidates, Form.PANELS, rows, len(x) / rows))
    return Plan(batch, len(x), Form.PANELS, tuple(choices), panel=panel)


def _without_dense(arrays: GraphArrays, plan: Plan) -> Plan:
    """The plan with sparse kernels only, so that it is one call; the same where there are none for a layer."""
    choices = []
    for number, choice in zip(arrays.numbers, plan.choices, strict=True):
        node = arrays.graph.nodes[number]
        if choice.kernel != Kernel.DENSE:
            choices.append(choice)
        elif isinstance(node, Dense):
            choices.append(Choice(Kernel.ROWS) if plan.form == Form.VECTORS else Choice(Kernel.PANEL, 256))
        elif plan.form == Form.VECTORS:
            choices.append(image_choices(arrays, number, *_images_of(arrays.graph, number))[0])
        else:
            choices.append(panel_choices(arrays, number, plan.panel)[0])
    return replace(plan, choices=tuple(choices))


def _measured(
    arrays: GraphArrays, number: int, candidates: Sequence[Choice], form: Form, rows: int, times_as_many: float
) -> Choice:
    """The fastest of the candidates for a convolution, between values as they lie inside the graph."""
    node, shapes = arrays.graph.nodes[number], arrays.graph.shapes()
    assert isinstance(node, Convolution)
    alone = Graph(("",), (), shapes[node.inputs[0]], (replace(node, inputs=(0,)),))
    own = GraphArrays(alone)
    calls = {}
    for choice in candidates:
        bare = lower_bare(own, choice, form, rows)
        calls[choice] = _call(bare)
    return fastest(calls, len(node.layer.values) >= LARGE, times_as_many)


def _call(bare: Bare) -> Callable[[], None]:
    x = torch.rand(bare.input, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    y, room = (torch.empty(size, dtype=torch.float32) for size in (bare.output, bare.compiled.workspace))
    places = x.data_ptr(), y.data_ptr(), room.data_ptr()

    def call() -> None:
        for segment in bare.compiled.segments:
            segment(*places)

    call.__dict__["memory"] = x, y, room  # whose addresses it holds
    return call


def _images_of(graph: Graph, number: int) -> tuple[ImageLayout, ImageLayout]:
    """How a convolution's input and result lie when examples go one by one."""
    shapes, lanes = graph.shapes(), host().lanes
    own, result = shapes[graph.nodes[number].inputs[0]], shapes[number + 1]
    return image_of(own, lanes), image_of(result, lanes)


def image_choices(arrays: GraphArrays, number: int, own: ImageLayout, result: ImageLayout) -> list[Choice]:
    """Candidates for one example: how its image is copied, and for how many channels at a time. Dense comes last."""
    node, lanes = arrays.graph.nodes[number], host().lanes
    assert isinstance(node, Convolution)
    apart, before = unpooled(node, own, result, lanes)
    window = apart.window
    choices = []
    if before.pitch % lanes == 0:
        columns = columns_of_rows(window, before, lanes)
        choices += _by_channels(Kernel.SHIFTED_ROWS, own.channels, columns * lanes, columns, COPIES)
    columns = columns_of_all(window)
    choices += _by_channels(Kernel.ALL_WINDOWS, own.channels, columns * before.plane, columns, COPIES)
    return [*choices, Choice(Kernel.DENSE)]


def panel_choices(arrays: GraphArrays, number: int, width: int) -> list[Choice]:
    """Candidates for a panel of `width` examples: how many channels at a time. Dense comes last."""
    graph, node = arrays.graph, arrays.graph.nodes[number]
    assert isinstance(node, Convolution)
    value = node.inputs[0]
    own = panel_of(graph.shapes()[value], borders(graph)[value], width)
    seen = min(node.window.reach[0] * (node.window.reach[1] + PIECES), own.positions)
    return [*_by_channels(Kernel.PANEL, own.channels, seen * width, own.positions, NEAR), Choice(Kernel.DENSE)]


PIECES = 4
"""Outputs that are computed side by side."""


def _by_channels(kernel: Kernel, channels: int, floats: int, columns: int, sizes: Sequence[int]) -> list[Choice]:
    """Choices whose blocks of channels take about so many floats; each channel has `columns` columns."""
    most = min(channels, most_channels(columns))
    if not most:
        return []
    wanted = {even(channels, max(1, min(most, size // floats))) for size in sizes}
    return [Choice(kernel, block) for block in sorted(wanted)]
