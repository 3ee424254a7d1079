"""Tuning: every layer's candidates are measured on this machine, on real activations, and the fastest taken.

Torch's own dense product is a candidate everywhere, and torch for the whole chain at the end: a chain is never planned
to be slower than dense. Measured on one thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from tombola.compression.calls import call_of
from tombola.compression.compiled import Arrays, Operation, Weights, layer_steps, scratch_of, segments_of, width_of
from tombola.compression.latency import interleaved
from tombola.compression.layers import Layer
from tombola.compression.plans import PANEL, Choice, Form, Kernel, Plan
from tombola.kernels.packing import MOST_COLUMNS
from tombola.kernels.program import Place, Where
from tombola.kernels.side_by_side import fits
from tombola.kernels.target import host

WORTH, WORTH_OF_CHAIN = 1.03, 1.1
"""How many times faster than dense sparse has to be measured before it is preferred: noise is not a gain. A layer is
one choice among many, a whole chain the last one."""
UNCERTAIN = 1.2
"""How many times faster than dense sparse has to be expected to be where it was not measured."""
CALL_OF_DENSE = 0.1
"""The fraction of torch's time for the fewest rows measured that it takes however few rows there are."""
NARROW = 0.4
"""The fraction of a full panel's time that a panel takes however few rows it has."""
VECTORS_UP_TO = 8
"""Rows for which going one by one is tried, too."""
BLOCKS = (128, 200, 256, 512, 1024, 2048)
"""Columns at a time: with a panel of 64 they fill a first-level cache (128) up to half of a second-level one (2048)."""
Key = TypeVar("Key")
HOPELESS = 3.0
"""How many times slower than the fastest a first turn may be."""
VECTOR_BLOCKS = (512, 1024, 2048)
LARGE = 1 << 22
"""Weights from which a layer is measured with fewer candidates and repetitions."""
SPARSE_BELOW = 0.4
"""The density below which a layer that nobody measured goes by panels."""


def untuned(layers: Sequence[Layer]) -> Plan:
    """A plan for panels where nothing was measured."""
    weights = sum(layer.inputs * layer.outputs for layer in layers)
    kept = sum(len(layer.values) for layer in layers)
    form = Form.PANELS if kept < SPARSE_BELOW * weights else Form.TORCH
    choices = [Choice(Kernel.PANEL, even(layer.inputs, 1024 if _large(layer) else 256)) for layer in layers]
    return Plan(PANEL, PANEL, form, tuple(choices))


def plan_on_torch(layers: Sequence[Layer], rows: int) -> Plan:
    """A plan that leaves everything to torch."""
    return Plan(rows, rows, Form.TORCH, tuple(Choice(Kernel.DENSE) for _ in layers))


def expected_best(layers: Sequence[Layer], plans: Sequence[Plan], rows: int, unmeasured: Plan | None = None) -> Plan:
    """Of plans measured for other numbers of rows the one to take for `rows`, torch where that is likely faster.

    `unmeasured` is the one to take where there is none; else the one for chains that nobody measured.
    """
    measured = sorted((plan for plan in plans if plan.dense and plan.seconds), key=lambda plan: plan.rows)
    if not measured:
        by_panel = [plan for plan in plans if plan.form == Form.PANELS]
        return min(by_panel, key=lambda plan: abs(math.log(plan.rows / rows)), default=unmeasured or untuned(layers))
    first = measured[0].dense or 0.0
    sizes = [0, *(plan.rows for plan in measured)]
    times = [CALL_OF_DENSE * first, *(plan.dense or 0.0 for plan in measured)]
    dense = float(np.interp(rows, sizes, times)) * max(1.0, rows / sizes[-1])
    expected = {plan.rows: _expected(plan, rows) for plan in measured if plan.form != Form.TORCH}
    best = min(measured, key=lambda plan: expected.get(plan.rows, math.inf))
    if expected.get(best.rows, math.inf) * UNCERTAIN > dense:
        return plan_on_torch(layers, rows)
    return best


def _expected(plan: Plan, rows: int) -> float:
    """The seconds that a measured plan would take for `rows` rows."""
    assert plan.seconds is not None
    if plan.form == Form.VECTORS:
        tried = rows <= VECTORS_UP_TO or plan.rows > VECTORS_UP_TO
        return plan.seconds / plan.rows * rows if tried else math.inf
    return plan.seconds * _panels(rows, plan.panel) / _panels(plan.rows, plan.panel)


def _panels(rows: int, panel: int) -> float:
    """The work of so many rows, in full panels: a narrow one goes through all nonzeros for fewer rows."""
    full, rest = divmod(rows, panel)
    return full + (NARROW + (1 - NARROW) * width_of(rest) / panel if rest else 0)


def tune(arrays: Arrays, example: Tensor, batch: int, rows: int) -> Plan:
    """The fastest plan for `rows` rows, `example` (n, inputs) being what such rows look like."""
    x = example[torch.arange(rows) % len(example)].contiguous()
    with torch.no_grad():
        plans = [_by_panel(arrays, x, batch)]
        if rows <= VECTORS_UP_TO:
            plans.append(_by_vectors(arrays, example, batch, rows))
        plans += [sparse for plan in plans if (sparse := without_dense(plan)) is not None]
        return best_of(arrays, plans, x)


def best_of(arrays: Weights, plans: Sequence[Plan], x: Tensor) -> Plan:
    """The plan that is the fastest on all of x, torch where none is clearly faster; with the times of both."""
    output = x.new_empty(len(x), arrays.outputs)
    calls = {str(number): _whole(arrays, plan, x, output) for number, plan in enumerate(plans)}
    times = measured({**calls, "torch": lambda: arrays.on_torch(x)}, large=any(map(_large, arrays.layers)))
    dense = times.pop("torch")
    best = min(times, key=lambda number: times[number])
    if times[best] * WORTH_OF_CHAIN > dense:
        return replace(plan_on_torch(arrays.layers, len(x)), batch=plans[0].batch, seconds=dense, dense=dense)
    return replace(plans[int(best)], seconds=times[best], dense=dense)


def _by_panel(arrays: Arrays, x: Tensor, batch: int) -> Plan:
    """Layer by layer, each on what the layers before it make of the first panel."""
    rows = min(len(x), PANEL)
    panel = x.new_zeros(arrays.layers[0].inputs, width_of(rows))
    panel[:, :rows] = x[:rows].T
    choices = []
    for number in range(len(arrays.layers)):
        choices.append(panel_choice(arrays, number, panel, len(x) / rows))
        panel = _dense_panel(arrays, number, panel)
    return Plan(batch, len(x), Form.PANELS, tuple(choices))


def panel_choice(arrays: Arrays, number: int, panel: Tensor, panels: float) -> Choice:
    """The fastest kernel of a layer for a panel (inputs, width) of examples, with its time for `panels` of them."""
    layer, width = arrays.layers[number], panel.shape[1]
    result = panel.new_empty(layer.outputs, width)
    calls = {}
    for candidate in [Choice(Kernel.PANEL, block) for block in _blocks(layer)] + [Choice(Kernel.DENSE)]:
        steps = layer_steps(arrays, number, candidate, Where(Place.INPUT), Where(Place.OUTPUT), width)
        calls[candidate] = step_call(steps, panel, result)
    return fastest(calls, _large(layer), panels)


def _by_vectors(arrays: Arrays, x: Tensor, batch: int, rows: int) -> Plan:
    """Layer by layer on single rows, several of them, since their zeros differ."""
    x = x[torch.arange(rows if any(map(_large, arrays.layers)) else VECTORS_UP_TO) % len(x)]
    choices = []
    for number, layer in enumerate(arrays.layers):
        choices.append(vector_choice(arrays, number, x, rows))
        x = torch.addmm(torch.from_numpy(layer.bias), x, arrays.dense(number).T)
        x = x.relu_() if layer.relu else x
    return Plan(batch, rows, Form.VECTORS, tuple(choices))


def vector_choice(arrays: Arrays, number: int, x: Tensor, rows: int) -> Choice:
    """The fastest kernel of a layer for single rows, measured on x (n, inputs), with its time for `rows` of them."""
    layer = arrays.layers[number]
    result, room = x.new_empty(len(x), layer.outputs), x.new_empty(scratch_of(layer))
    calls = {}
    for choice in _vector_choices(layer):
        steps: list[Operation] = []
        for row in range(len(x)):
            path = Where(Place.INPUT, row * layer.inputs), Where(Place.OUTPUT, row * layer.outputs)
            steps += layer_steps(arrays, number, choice, *path, 1, Where(Place.WORKSPACE))
        calls[choice] = step_call(steps, x, result, room)
    return fastest(calls, _large(layer), rows / len(x))


def _dense_panel(arrays: Arrays, number: int, panel: Tensor) -> Tensor:
    layer = arrays.layers[number]
    result = torch.addmm(torch.from_numpy(layer.bias)[:, None], arrays.dense(number), panel)
    return result.relu_() if layer.relu else result


def fastest(calls: Mapping[Choice, Callable[[], None]], large: bool, times_as_many: float) -> Choice:
    """The fastest choice, with its time for `times_as_many` rows; dense where sparse is hardly faster."""
    times = measured(calls, large)
    best = min(times, key=lambda choice: times[choice] * (WORTH if choice.kernel != Kernel.DENSE else 1))
    return replace(best, seconds=times[best] * times_as_many)


def measured(calls: Mapping[Key, Callable[[], object]], large: bool) -> dict[Key, float]:
    """The least time of each in a few turns: disturbances only ever add. What is hopeless has one turn only."""
    once = {key: _once(call) for key, call in calls.items()}
    hopeful = [key for key in calls if once[key] <= HOPELESS * min(once.values())]
    named = {str(number): calls[key] for number, key in enumerate(hopeful)}
    times = interleaved(named, seconds=0.01, least_blocks=3 if large else 7, patience=0)
    return once | {key: min(times[number].all) for key, number in zip(hopeful, named, strict=True)}


def _once(call: Callable[[], object]) -> float:
    """The lesser of two turns: the first one also packs and fills caches."""
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def without_dense(plan: Plan) -> Plan | None:
    """The plan with sparse kernels only, so that it is one call; None where it is so already."""
    instead = Choice(Kernel.PANEL, 256) if plan.form == Form.PANELS else Choice(Kernel.ROWS)
    choices = tuple(instead if choice.kernel == Kernel.DENSE else choice for choice in plan.choices)
    return None if choices == plan.choices else replace(plan, choices=choices)


def step_call(steps: Sequence[Operation], x: Tensor, y: Tensor, room: Tensor | None = None) -> Callable[[], None]:
    segments = segments_of(steps, 0)

    def call() -> None:
        places = x.data_ptr(), y.data_ptr(), 0 if room is None else room.data_ptr()
        for segment in segments:
            segment(*places)

    return call


def _whole(arrays: Weights, plan: Plan, x: Tensor, y: Tensor) -> Callable[[], None]:
    call = call_of(arrays, plan, len(x))
    return lambda: call(x.data_ptr(), y.data_ptr())


def _blocks(layer: Layer) -> list[int]:
    """Candidates for the columns of a block, of about equal size; all columns at once among them."""
    widths = [width for width in (BLOCKS[2:] if _large(layer) else BLOCKS) if width < layer.inputs]
    return sorted({even(layer.inputs, width) for width in [*widths, min(layer.inputs, MOST_COLUMNS)]})


def _vector_choices(layer: Layer) -> list[Choice]:
    """Kernels for one row. What a block reads or writes at random places is to fit a first-level cache."""
    choices = [Choice(Kernel.ROWS), Choice(Kernel.COLUMNS), Choice(Kernel.DENSE)]
    if not _large(layer):
        choices.append(Choice(Kernel.DENSE_COLUMNS))
    if fits(layer.outputs, layer.inputs, host().lanes) and layer.density < SPARSE_BELOW:
        choices.append(Choice(Kernel.SIDE_BY_SIDE))
    for kernel, features in ((Kernel.ROWS, layer.inputs), (Kernel.COLUMNS, layer.outputs)):
        choices += [Choice(kernel, even(features, width)) for width in VECTOR_BLOCKS if 2 * width <= features]
    return choices


def even(inputs: int, most: int) -> int:
    """The width of blocks of at most `most` columns, all alike but for the last."""
    blocks = -(-inputs // most)
    return -(-inputs // blocks)


def _large(layer: Layer) -> bool:
    return layer.inputs * layer.outputs >= LARGE
