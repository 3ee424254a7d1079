"""Plans made machine code: a chain's weights as kernels read them, and the steps that a plan comes to."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tombola.compression.layers import Layer
from tombola.compression.plans import WHOLE, Choice, Form, Kernel, Plan
from tombola.kernels.packing import CHUNK, MOST_COLUMNS, Floats, Pattern, pack, values_of
from tombola.kernels.products import Epilogue
from tombola.kernels.program import Place, Program, Step, Where
from tombola.kernels.side_by_side import SideBySide, fits, pack_side_by_side
from tombola.kernels.steps import (
    columns_times_vector,
    dense_columns_times_vector,
    from_panel,
    panel_products,
    rows_times_vector,
    side_by_side,
    to_panel,
)
from tombola.kernels.target import host
from tombola.kernels.vectors import columns_scratch

ALIGNMENT = 16
"""Floats: where a layer's numbers begin in a workspace."""


class Weights(Protocol):
    """The weights of a chain or a graph, ready to be compiled; `inputs` and `outputs` are floats of a row."""

    @property
    def inputs(self) -> int: ...

    @property
    def outputs(self) -> int: ...

    @property
    def layers(self) -> tuple[Layer, ...]: ...

    def compile(self, plan: Plan, rows: int) -> Compiled:
        """The plan for `rows` rows."""

    def keep_only(self, plans: Sequence[Plan]) -> None:
        """Forgets what these plans do not need."""

    def on_torch(self, rows: Tensor) -> Tensor:
        """All of it on torch."""


class Arrays:
    """A chain's layers as kernels read them, packed when first asked for. Any thread may ask."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self._lock = threading.Lock()
        self._packed: dict[tuple[int, Kernel, int], tuple[Pattern, list[Floats]]] = {}
        self._dense: dict[int, Tensor] = {}
        self._columns: dict[int, Tensor] = {}
        self._side_by_side: dict[int, SideBySide] = {}
        self._on_torch: list[tuple[Tensor, Tensor, bool]] = []

    @property
    def inputs(self) -> int:
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        return self.layers[-1].outputs

    def packed(self, number: int, choice: Choice) -> tuple[Pattern, list[Floats]]:
        """The pattern and the values of a layer's blocks; those of its transpose for COLUMNS."""
        key = _key(number, choice)
        with self._lock:
            if key not in self._packed:
                keep, matrix = self.layers[number].keep(), self._matrix(number).numpy()
                most = MOST_COLUMNS
                if choice.kernel == Kernel.COLUMNS:
                    keep, matrix = np.ascontiguousarray(keep.T), np.ascontiguousarray(matrix.T)
                    most -= CHUNK  # columns behind the last, for what fills up a chunk
                pattern = pack(keep, min(choice.block, most))
                values = [values_of(matrix, block) for block in pattern.blocks]
                self._packed[key] = without_places(pattern), values
            return self._packed[key]

    def columns(self, number: int) -> Floats:
        """The transpose (inputs, stride) of a layer's matrix, zeros behind its outputs up to whole vectors."""
        with self._lock:
            if number not in self._columns:
                matrix = self._matrix(number)
                columns = torch.zeros(matrix.shape[1], width_of(matrix.shape[0]), dtype=torch.float32)
                columns[:, : matrix.shape[0]] = matrix.T
                self._columns[number] = columns
            return self._columns[number].numpy()

    def side_by_side(self, number: int) -> SideBySide:
        """A layer's matrix with 16 rows side by side."""
        with self._lock:
            if number not in self._side_by_side:
                matrix = self._matrix(number).numpy()
                self._side_by_side[number] = pack_side_by_side(self.layers[number].keep(), matrix)
            return self._side_by_side[number]

    def keep_only(self, plans: Sequence[Plan]) -> None:
        """Forgets what these plans do not need."""
        choices = {(number, choice) for plan in plans for number, choice in enumerate(plan.choices)}
        keys = {_key(number, choice) for number, choice in choices}
        with self._lock:
            self._on_torch = []
            self._packed = {key: arrays for key, arrays in self._packed.items() if key in keys}
            self._dense = {
                number: matrix for number, matrix in self._dense.items() if (number, Kernel.DENSE, 0) in keys
            }
            self._side_by_side = {
                number: packed
                for number, packed in self._side_by_side.items()
                if (number, Kernel.SIDE_BY_SIDE, 0) in keys
            }
            self._columns = {
                number: matrix for number, matrix in self._columns.items() if (number, Kernel.DENSE_COLUMNS, 0) in keys
            }

    def dense(self, number: int) -> Tensor:
        """The matrix (outputs, inputs) of a layer, removed weights 0."""
        with self._lock:
            return self._matrix(number)

    def _matrix(self, number: int) -> Tensor:
        if number not in self._dense:
            self._dense[number] = torch.from_numpy(self.layers[number].matrix())
        return self._dense[number]

    def compile(self, plan: Plan, rows: int) -> Compiled:
        """See `compile_rows`."""
        return compile_rows(self, plan, rows)

    def on_torch(self, rows: Tensor) -> Tensor:
        """The whole chain on torch, rows (..., inputs)."""
        ready = self._on_torch  # read once: another thread's `keep_only` may empty it at any time
        if not ready:
            biases = [torch.from_numpy(layer.bias) for layer in self.layers]
            ready = [(self.dense(n), biases[n], layer.relu) for n, layer in enumerate(self.layers)]
            self._on_torch = ready
        for matrix, bias, relu in ready:
            rows = functional.linear(rows, matrix, bias)
            if relu:
                rows.relu_()
        return rows


def _key(number: int, choice: Choice) -> tuple[int, Kernel, int]:
    return number, choice.kernel, 0 if choice.kernel in WHOLE else choice.block


def without_places(pattern: Pattern) -> Pattern:
    """Where nonzeros are in the dense matrix matters no more once their values are taken from it."""
    nowhere = np.empty(0, dtype=np.int64)
    return replace(pattern, blocks=tuple(replace(block, places=nowhere) for block in pattern.blocks))


class DenseProduct:
    """A layer on torch between the steps of programs; its numbers lie at places of the call, as theirs do.

    Panels lie feature by feature, a vector is a panel of one example.
    """

    def __init__(self, layer: Layer, matrix: Tensor, x: Where, y: Where, width: int) -> None:
        self.matrix, self.relu, self.width = matrix, layer.relu, width
        self.bias = torch.from_numpy(layer.bias)[:, None]
        self.x, self.y = x, y

    def __call__(self, x: int, y: int, workspace: int) -> None:
        places = (x, y, workspace)
        outputs, inputs = self.matrix.shape
        result = _tensor_at(places, self.y, outputs, self.width)
        torch.addmm(self.bias, self.matrix, _tensor_at(places, self.x, inputs, self.width), out=result)
        if self.relu:
            result.relu_()


def _tensor_at(places: Sequence[int], where: Where, features: int, width: int) -> Tensor:
    count = features * width
    numbers = (ctypes.c_float * count).from_address(places[int(where.place)] + 4 * where.offset)
    return torch.frombuffer(numbers, dtype=torch.float32, count=count).view(features, width)


Segment = Callable[[int, int, int], None]
"""A program or what torch does between: called with the addresses of input, output and workspace."""
Operation = Step | Segment


@dataclass(frozen=True)
class Compiled:
    """A chain for one number of rows: its parts in order, and the floats that a call needs beside input and output."""

    segments: tuple[Segment, ...]
    workspace: int


def compile_rows(arrays: Arrays, plan: Plan, rows: int) -> Compiled:
    """The plan for `rows` rows: at most a panel of them where it goes by panels. Not for plans on torch."""
    if plan.form == Form.VECTORS:
        return _vectors(arrays, plan.choices, rows)
    width = width_of(rows)
    layers = arrays.layers
    places, workspace = _workspace([layers[0].inputs, *(layer.outputs for layer in layers)], width)
    steps: list[Operation] = [to_panel(rows, layers[0].inputs, Where(Place.INPUT), places[0], width)]
    for number, choice in enumerate(plan.choices):
        steps += layer_steps(arrays, number, choice, places[number], places[number + 1], width)
    steps.append(from_panel(rows, layers[-1].outputs, places[-1], width, Where(Place.OUTPUT)))
    return Compiled(segments_of(steps, workspace), workspace)


def width_of(rows: int) -> int:
    """The width of a panel that holds `rows` rows: whole vectors."""
    lanes = host().lanes
    return -(-rows // lanes) * lanes


def layer_steps(
    arrays: Arrays, number: int, choice: Choice, x: Where, y: Where, width: int, scratch: Where | None = None
) -> list[Operation]:
    """What one layer does; `width` is 1 for the kernels of one vector, `scratch` room for COLUMNS."""
    layer = arrays.layers[number]
    if choice.kernel == Kernel.DENSE:
        return [DenseProduct(layer, arrays.dense(number), x, y, width)]
    if choice.kernel == Kernel.DENSE_COLUMNS:
        assert scratch is not None
        return [*dense_columns_times_vector(arrays.columns(number), layer.bias, x, y, layer.relu, scratch)]
    if choice.kernel == Kernel.SIDE_BY_SIDE:
        if fits(layer.outputs, layer.inputs, host().lanes):
            return [*side_by_side(arrays.side_by_side(number), layer.bias, x, y, layer.relu)]
        choice = Choice(Kernel.ROWS)  # chosen on another kind of machine
    pattern, values = arrays.packed(number, choice)
    if choice.kernel == Kernel.PANEL:
        epilogue = Epilogue.RELU if layer.relu else Epilogue.NONE
        return [*panel_products(pattern, values, layer.bias, x, y, width, epilogue)]
    if choice.kernel == Kernel.ROWS:
        return [*rows_times_vector(pattern, values, layer.bias, x, y, layer.relu)]
    assert scratch is not None
    return [*columns_times_vector(pattern, values, layer.bias, x, y, layer.relu, scratch)]


def _vectors(arrays: Arrays, choices: Sequence[Choice], rows: int) -> Compiled:
    """Every row by itself, from the input to the output."""
    layers = arrays.layers
    places, size = _workspace([layer.outputs for layer in layers[:-1]], 1)
    scratch = Where(Place.WORKSPACE, size)
    steps: list[Operation] = []
    for row in range(rows):
        begin = Where(Place.INPUT, row * layers[0].inputs)
        path = [begin, *places, Where(Place.OUTPUT, row * layers[-1].outputs)]
        for number, choice in enumerate(choices):
            steps += layer_steps(arrays, number, choice, path[number], path[number + 1], 1, scratch)
    workspace = size + max(scratch_of(layer) for layer in layers)
    return Compiled(segments_of(steps, workspace), workspace)


def scratch_of(layer: Layer) -> int:
    """Floats that the kernels of one vector need beside input and output."""
    return max(columns_scratch(layer.inputs, layer.outputs), layer.inputs + width_of(layer.outputs))


def _workspace(features: Sequence[int], width: int) -> tuple[list[Where], int]:
    """Two places that take turns, and their size together: a layer reads one and writes the other."""
    even, odd = (-(-width * max(features[turn::2], default=0) // ALIGNMENT) * ALIGNMENT for turn in (0, 1))
    return [Where(Place.WORKSPACE, even * (number % 2)) for number in range(len(features))], even + odd


def segments_of(steps: Sequence[Operation], workspace: int) -> tuple[Segment, ...]:
    """Neighbouring steps of machine code become one program."""
    segments: list[Segment] = []
    together: list[Step] = []
    for step in steps:
        if isinstance(step, Step):
            together.append(step)
            continue
        if together:
            segments.append(Program(together, workspace))
        segments.append(step)
        together = []
    return (*segments, *([Program(together, workspace)] if together else []))
