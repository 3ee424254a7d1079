"""One convolution in a sparse step, with the ReLU and perhaps the max pool behind it, on the layouts of `activations`.

With X the inputs on a border of zeros, Y[o, p] = Σ W[o, i, k] X[i, p + k] + b and D the gradient of Y: dW[o, i, k] =
Σ_p D[o, p] X[i, p + k] where the mask keeps, db = the sums of D, and the gradient of X is the convolution of D, on a
border of its own, with W transposed and turned round. Where a pool follows, Y is never stored: only what the pool gave,
and which position it took, from which the way back makes D.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tombola.kernels.convolutions import most_channels, pack_panel
from tombola.kernels.packing import Pattern
from tombola.kernels.products import TILES, Epilogue
from tombola.kernels.program import Step
from tombola.kernels.updates import GATHER
from tombola.kernels.windows import Pair, Panel, Window
from tombola.training.sparse.activations import (
    ChunkLayout,
    Tiles,
    all_positions,
    empty_chunks,
    layouts_of,
    layouts_of_features,
    panel_of,
    plain_tiles,
    pooled_positions,
    pooling_tiles,
)
from tombola.training.sparse.convolving import (
    Choices,
    Matrix,
    convolution,
    copied,
    pooled_convolution,
    samples,
    sums_before_pool,
    unpooled,
)
from tombola.training.sparse.layer import Layer, Load, by_block, features_panel
from tombola.training.sparse.operations import Operation

NEAR_CHANNELS = 32
"""Input channels at a time: what a tile sees of them stays near the core."""


class ConvLayer(Layer):
    """Kept weights of a convolution of stride 1; a ReLU follows, and a 2 × 2 max pool where `window.pool` says so.

    `inputs` and `results` are panels of one chunk, their borders as wide as whoever reads them needs. Activations are
    (chunks, channels, positions, lanes); those of the `last` convolution are what a dense layer reads: (features,
    width).
    """

    convolves = True

    def __init__(self, module: nn.Conv2d, keep: Tensor, window: Window, inputs: Panel, results: Panel, last: bool):
        super().__init__(module, relu=True)
        self.window, self.inputs, self.results, self.last = window, inputs, results, last
        self.lanes = inputs.examples
        height, width = Window(window.kernel, padding=window.padding).outputs(inputs.height, inputs.width)
        self.back = Window(window.kernel, padding=padding_of_gradient(window))
        """What an input sees of the gradient of the outputs."""
        self.before = panel_of(results.channels, height, width, max(self.back.padding), self.lanes)
        """How that gradient lies, before the pool."""
        self.keep = keep.numpy()
        self.pattern = _packed(self.keep, window, inputs, results)
        self.places = torch.from_numpy(self.pattern.places)
        self._choices: dict[int, list[Choices]] = {}

    @property
    def count(self) -> int:
        return self.pattern.nonzeros

    @property
    def features(self) -> int:
        return self.inputs.channels * self.inputs.height * self.inputs.width

    @property
    def pooled(self) -> bool:
        return self.window.pool > 1

    def _places(self) -> Tensor:
        return self.places

    def entrance(self, count: int, load: Load) -> tuple[Tensor, list[Operation]]:
        panel = self.inputs
        compact = Panel(panel.channels, panel.height, panel.width, 0, self.lanes)
        chunks = -(-count // self.lanes)
        memory = empty_chunks(compact, chunks)
        as_they_come_in = layouts_of(compact, memory)
        begin: list[Operation] = []
        for number, chunk in enumerate(as_they_come_in):
            first = number * self.lanes
            begin.append(load(first, min(self.lanes, count - first), chunk.at(), self.lanes))
        if panel == compact:
            return memory, begin
        bordered = empty_chunks(panel, chunks)
        return bordered, begin + [
            copied(*pair) for pair in zip(as_they_come_in, layouts_of(panel, bordered), strict=True)
        ]

    def outputs(self, count: int) -> Tensor:
        if self.last:
            return features_panel(self.results.channels * self.results.height * self.results.width, count)
        return empty_chunks(self.results, -(-count // self.lanes))

    def forward(self, x: Tensor, y: Tensor) -> list[Operation]:
        inputs, results = layouts_of(self.inputs, x), self._results(y, len(x))
        matrix = Matrix(self.pattern, by_block(self.pattern, self.weights), self.biases.numpy())
        tiles = self._tiles(inputs[0], results[0])
        steps: list[Operation] = []
        if not self.pooled:
            for own, result in zip(inputs, results, strict=True):
                steps += convolution(matrix, own, result, tiles, Epilogue.RELU)
            return steps
        sums = sums_before_pool(matrix, tiles, self.lanes)
        for own, result, choices in zip(inputs, results, self._choices_of(len(x), tiles), strict=True):
            steps += pooled_convolution(matrix, own, result, tiles, choices, sums)
        return steps

    def backward(self, delta: Tensor, x: Tensor) -> list[Operation]:
        inputs, deltas = layouts_of(self.inputs, x), self._results(delta, len(x))
        tiles = self._tiles(inputs[0], deltas[0])
        gradients = by_block(self.pattern, self.weight_gradients), self.bias_gradients.numpy()
        steps: list[Operation] = []
        for own, result, choices in zip(inputs, deltas, self._choices_of(len(x), tiles), strict=True):
            fresh = own is inputs[0]
            steps += samples(self.pattern, *gradients, result, own, tiles, choices if self.pooled else None, fresh)
        return steps

    def below(self, delta: Tensor, x: Tensor, delta_below: Tensor) -> list[Operation]:
        inputs, deltas = layouts_of(self.inputs, x), self._results(delta, len(x))
        goals = layouts_of(self.inputs, delta_below)
        fits = not self.pooled and not self.last and self.results.border >= self.before.border
        # One chunk's memory for all chunks in turn: it is still near when it is read.
        before = deltas[0] if fits else layouts_of(self.before, empty_chunks(self.before, 1))[0]
        transposed = _packed(_turned(self.keep), self.back, before.panel, self.inputs)
        values = np.empty(self.count, dtype=np.float32)
        blocks = by_block(transposed, torch.from_numpy(values))
        matrix = Matrix(transposed, blocks, np.zeros(self.inputs.channels, dtype=np.float32))
        positions = all_positions(self.inputs.height, self.inputs.width)
        origins = before.vectors(positions, _less(self.back.padding))
        tiles = _parts(plain_tiles(origins, goals[0].vectors(positions), TILES), self._channels)
        places = self._places_of(transposed)
        steps: list[Operation] = [Step(GATHER, (self.count, places, self.weights.numpy(), values))]
        choices = self._choices_of(len(x), self._tiles(inputs[0], deltas[0]))
        for own, result, goal, taken in zip(inputs, deltas, goals, choices, strict=True):
            if fits:
                before = result
            elif self.pooled:
                steps += unpooled(result, before, self._pools(before, result), taken)
            else:
                steps.append(copied(result, before))
            steps += convolution(matrix, before, goal, tiles, Epilogue.GATE, own)
        return steps

    @property
    def _channels(self) -> int:
        """That are read and written."""
        return self.inputs.channels + self.results.channels

    def _results(self, memory: Tensor, chunks: int) -> list[ChunkLayout]:
        if self.last:
            return layouts_of_features(self.results, chunks, memory)
        return layouts_of(self.results, memory)

    def _tiles(self, own: ChunkLayout, result: ChunkLayout) -> list[Tiles]:
        """Of a chunk's inputs and results, part after part."""
        moved = _less(self.window.padding)
        if self.pooled:
            return self._pools(own, result, moved)
        positions = all_positions(self.results.height, self.results.width)
        return _parts(plain_tiles(own.vectors(positions, moved), result.vectors(positions), TILES), self._channels)

    def _pools(self, before: ChunkLayout, behind: ChunkLayout, moved: Pair = (0, 0)) -> list[Tiles]:
        """From the four positions of each pool to its own, part after part."""
        taken, seen = pooled_positions(self.results.height, self.results.width)
        return [*pooling_tiles(before.vectors(seen, moved), behind.vectors(taken)).parts(self._channels)]

    def _choices_of(self, chunks: int, tiles: list[Tiles]) -> list[Choices]:
        """What the pool takes of a batch of so many chunks; the same memory for every step of that size."""
        if chunks not in self._choices:
            made = [Choices.of(self.results.channels, tiles if self.pooled else [], self.lanes) for _ in range(chunks)]
            self._choices[chunks] = made
        return self._choices[chunks]

    def _places_of(self, transposed: Pattern) -> NDArray[np.int32]:
        """Where the nonzeros of W', in the order of its blocks, are among the weights."""
        position = np.empty(self.keep.size, dtype=np.int32)
        position[self.pattern.places] = np.arange(self.count, dtype=np.int32)
        return np.ascontiguousarray(_turned(position.reshape(self.keep.shape)).reshape(-1)[transposed.places])


def padding_of_gradient(window: Window) -> Pair:
    """How far beyond the outputs an input looks for them: where all of its window lies on them, not at all."""
    return window.kernel[0] - 1 - window.padding[0], window.kernel[1] - 1 - window.padding[1]


def _turned(weights: np.ndarray) -> np.ndarray:
    """(outputs, inputs, height, width) as (inputs, outputs, height, width), windows turned round."""
    return np.ascontiguousarray(weights.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1])


def _packed(keep: np.ndarray, window: Window, own: Panel, result: Panel) -> Pattern:
    near = min(NEAR_CHANNELS, most_channels(own.positions), own.channels)
    channels = -(-own.channels // -(-own.channels // near))  # blocks of equal size
    return pack_panel(keep, 1, window, own, result, result.examples, channels).pattern


def _parts(tables: list[Tiles], channels: int) -> list[Tiles]:
    return [part for tiles in tables for part in tiles.parts(channels)]


def _less(padding: Pair) -> Pair:
    return -padding[0], -padding[1]
