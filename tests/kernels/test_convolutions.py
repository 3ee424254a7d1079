"""Convolutions in every packing, against torch in float64: what they read, what they write, what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from fenced_arrays import Fences, address
from hypothesis import given, settings
from hypothesis import strategies as st
from small_matrices import assert_sums
from small_windows import (
    NAN,
    Convolution,
    any_image,
    convolutions,
    gaps,
    inner,
    laid_out,
    pairs,
    result_image,
    seen_in,
    to_read,
)

from tombola.errors import KernelError
from tombola.kernels.compiler import Kernel, compiled
from tombola.kernels.convolutions import Packed, Tiles, most_channels, pack_all, pack_panel, pack_rows
from tombola.kernels.expansions import expand
from tombola.kernels.packing import Block, values_of
from tombola.kernels.products import MOST_SUMS, TILES, Epilogue
from tombola.kernels.target import Target
from tombola.kernels.tiles import tile_product
from tombola.kernels.windows import ImageLayout, Pair, Panel, Window

ADDED = (Epilogue.ADD, Epilogue.ADD_RELU)
Pack = Callable[..., Packed]


@dataclass(frozen=True)
class Call:
    """A convolution with its numbers: inputs (examples, channels, height, width), what is added likewise."""

    convolution: Convolution
    epilogue: Epilogue
    weights: np.ndarray
    bias: np.ndarray
    x: np.ndarray
    added: np.ndarray

    @classmethod
    def of(cls, convolution: Convolution, examples: int, epilogue: Epilogue) -> Call:
        """Of examples with numbers of their own. What is pooled has nothing added."""
        own = convolution
        if own.window.pool > 1 and epilogue in ADDED:
            epilogue = Epilogue.RELU
        weights = own.numbers(*own.keep.shape) * own.keep
        x = own.numbers(examples, own.inputs, *own.size)
        added = own.numbers(examples, own.outputs, *own.result)
        return cls(own, epilogue, weights, own.numbers(own.outputs), x, added)

    def exact(self) -> np.ndarray:
        exact = self.convolution.exact(self.x, self.weights, self.bias)
        if self.epilogue in ADDED:
            exact = exact + self.added
        return exact if self.epilogue in (Epilogue.NONE, Epilogue.ADD) else np.maximum(exact, 0)

    def check(self, found: np.ndarray) -> None:
        """`found` is exact but for its roundings: one for each nonzero, three to join the chains of each block."""
        own = self.convolution
        magnitudes = own.exact(*map(np.abs, (self.x, self.weights, self.bias)))
        nonzeros = own.keep.reshape(own.outputs, -1).sum(1)
        terms = np.where(nonzeros > 0, nonzeros + 3 * own.blocks, 0)
        if self.epilogue in ADDED:
            magnitudes, terms = magnitudes + np.abs(self.added), terms + 1
        assert_sums(found, self.exact(), magnitudes, 0 if own.whole else terms[:, None, None])


@dataclass
class Runner:
    """Puts the kernels of a convolution together, with every table in arrays of its own."""

    target: Target
    fences: Fences
    call: Call
    packed: Packed
    own: Panel | ImageLayout
    result: Panel | ImageLayout

    def run(self, x: np.ndarray, x_begin: int, y: np.ndarray, gate: np.ndarray | None) -> None:
        """From the inputs at x[x_begin] to y, block after block."""
        fences, packed, blocks = self.fences, self.packed, self.packed.pattern.blocks
        tiles = replace(
            packed.tiles, origins=fences.given(packed.tiles.origins), goals=fences.given(packed.tiles.goals)
        )
        pooled = self.call.convolution.window.pool > 1
        bias = fences.given(self.call.bias)
        calls: list[tuple[Kernel, tuple[int, ...]]] = []
        copies, sums = self._copies(), np.zeros(0, np.float32)
        if pooled and len(blocks) > 1:  # sums that are not yet pooled lie tile by tile
            sums = fences.room((len(bias), tiles.count, tiles.vectors, tiles.registers * self.target.lanes))
        for number, block in enumerate(blocks):
            first, last = number == 0, number == len(blocks) - 1
            inputs = address(x, x_begin + number * packed.channels * self.own.plane)
            if packed.expansion is not None:
                channels = min(packed.channels, self.own.channels - number * packed.channels)
                calls.append(self._expand(channels, inputs, copies))
                inputs = address(copies)
            epilogue = self.call.epilogue if last else Epilogue.NONE
            matrix = self._matrix(block, bias)
            if pooled and not last:
                kernel, goals = (
                    tile_product(tiles.vectors, first, epilogue, False, tiles.registers),
                    self._in_order(tiles),
                )
                where = (address(sums), sums[0].size, tiles.count, address(tiles.origins), address(goals), 0)
            else:
                kernel, behind = tile_product(tiles.vectors, first, epilogue, pooled, tiles.registers), 0
                if pooled and not first:
                    behind = address(sums)
                elif gate is not None and last:
                    behind = address(gate)
                places = address(tiles.origins), address(tiles.goals), behind
                where = (address(y), self.result.plane, tiles.count, *places)
            calls.append((kernel, (*matrix, inputs, packed.column_stride, *where)))
        for kernel, arguments in calls:
            compiled(kernel, self.target).call(*arguments)
        fences.check()

    def _matrix(self, block: Block, bias: np.ndarray) -> tuple[int, ...]:
        values = values_of(self.call.weights, block)
        arrays = [self.fences.given(array) for array in (block.starts, block.columns, values)]
        return (len(bias), *map(address, arrays), address(bias))

    def _in_order(self, tiles: Tiles) -> np.ndarray:
        places = np.arange(tiles.count * tiles.vectors, dtype=np.int32) * (tiles.registers * self.target.lanes)
        return self.fences.given(places.reshape(tiles.count, tiles.vectors))

    def _copies(self) -> np.ndarray:
        expansion = self.packed.expansion
        return self.fences.room(0 if expansion is None else expansion.size * self.packed.channels)

    def _expand(self, channels: int, inputs: int, copies: np.ndarray) -> tuple[Kernel, tuple[int, ...]]:
        expansion = self.packed.expansion
        assert expansion is not None
        sources, inside = self.fences.given(expansion.sources), self.fences.given(expansion.inside)
        tables = (len(sources), address(sources), address(inside))
        kernel = expand(expansion.piece, expansion.step, None if expansion.whole else 0.0)
        return kernel, (channels, inputs, self.own.plane, address(copies), expansion.size, *tables)


def on_panels(
    target: Target,
    fences: Fences,
    call: Call,
    borders: Pair = (0, 0),
    spares: Pair = (0, 0),
    size: Pair | None = None,
) -> np.ndarray:
    """The outputs (examples, channels, height, width), with more border than is needed; the examples fill vectors.

    The further border of the inputs is NaN, that of the outputs stays so, and so do spare positions. `size` is that of
    less than all outputs.
    """
    convolution, window, examples = call.convolution, call.convolution.window, len(call.x)
    height, width = size or convolution.result
    own = Panel(convolution.inputs, *convolution.size, max(window.padding) + borders[0], examples, spares[0])
    result = Panel(convolution.outputs, height, width, borders[1], examples, spares[1])
    packed = pack_panel(convolution.keep, convolution.groups, window, own, result, target.lanes, convolution.block)
    assert packed.expansion is None
    x, gates = np.full(own.size, NAN), np.full(result.size, NAN)
    inner(x, own, window.padding)[...] = 0
    inner(x, own)[...] = call.x.transpose(1, 2, 3, 0)
    inner(gates, result)[...] = call.added[:, :, :height, :width].transpose(1, 2, 3, 0)
    y = fences.room(result.size)
    Runner(target, fences, call, packed, own, result).run(fences.given(x), 0, y, gate_of(fences, call, gates))
    found = inner(y, result).transpose(3, 0, 1, 2).copy()
    inner(y, result)[...] = np.nan
    assert np.isnan(y).all(), "the kernel wrote on the border"
    return found


def on_an_image(
    target: Target, fences: Fences, call: Call, pack: Pack, gap: int | None = 0, size: Pair | None = None
) -> np.ndarray:
    """The outputs (1, channels, height, width); all that may be read around the inputs is `slack` floats of NaN."""
    convolution, lanes = call.convolution, target.lanes
    height, width = size or convolution.result
    own = any_image(convolution.inputs, convolution.size, lanes, gap)
    result = result_image(convolution.outputs, (height, width), lanes, pack is pack_rows)
    packed = pack(convolution.keep, convolution.groups, convolution.window, own, result, lanes, convolution.block)
    assert packed.expansion is not None
    slack = packed.expansion.slack
    x, y = fences.given(to_read(call.x[0], own, packed.expansion)), fences.room(result.size)
    gate = gate_of(fences, call, laid_out(call.added[0, :, :height, :width], result))
    Runner(target, fences, call, packed, own, result).run(x, slack, y, gate)
    if pack is pack_rows:  # whole rows are written, and nothing behind the last one
        planes = y.reshape(result.channels, result.plane)
        assert np.isnan(planes[:, result.height * result.pitch :]).all(), "the kernel wrote behind the rows"
    return seen_in(y, result).copy()[None]


def gate_of(fences: Fences, call: Call, gates: np.ndarray) -> np.ndarray | None:
    return fences.given(gates) if call.epilogue in ADDED else None  # nobody looks at nothing


epilogues = st.sampled_from([Epilogue.NONE, Epilogue.NONE, Epilogue.RELU, Epilogue.ADD_RELU])


@settings(max_examples=70)
@given(
    convolution=convolutions(),
    vectors=st.integers(1, 3),
    borders=st.tuples(st.integers(0, 1), st.integers(0, 2)),
    spares=pairs(0, 2),
    epilogue=epilogues,
    at_end=st.booleans(),
)
def test_panels_equal_float64(
    target: Target,
    convolution: Convolution,
    vectors: int,
    borders: Pair,
    spares: Pair,
    epilogue: Epilogue,
    at_end: bool,
) -> None:
    """`convolutions` are as wide as one example needs them; a panel is narrow."""
    height, width = convolution.size
    narrow = replace(convolution, size=(height, min(width, max(convolution.window.reach[1] + 7, 1))))
    call = Call.of(narrow, vectors * target.lanes, epilogue)
    call.check(on_panels(target, Fences(at_end), call, borders, spares))


@settings(max_examples=70)
@given(convolution=convolutions(), gap=gaps, epilogue=epilogues, at_end=st.booleans())
@pytest.mark.parametrize("pack", [pack_rows, pack_all])
def test_one_example_equals_float64(
    target: Target, pack: Pack, convolution: Convolution, gap: int | None, epilogue: Epilogue, at_end: bool
) -> None:
    call = Call.of(convolution, 1, epilogue)
    call.check(on_an_image(target, Fences(at_end), call, pack, gap))


def any_packing(target: Target, call: Call, pack: Pack, size: Pair | None = None) -> np.ndarray:
    fences = Fences(at_end=True)
    if pack is pack_panel:
        return on_panels(target, fences, call, size=size)
    return on_an_image(target, fences, call, pack, size=size)


def dense(window: Window, size: Pair, block: int, channels: int = 6, groups: int = 1) -> Convolution:
    keep = np.ones((channels, channels // groups, *window.kernel), dtype=bool)
    return Convolution(window, size, groups, keep, block, True, np.random.default_rng(0))


PACKINGS = [pack_panel, pack_rows, pack_all]
SAME = Window((3, 3), padding=(1, 1))
POOLED = replace(SAME, pool=2)


@pytest.mark.parametrize("pack", PACKINGS)
@pytest.mark.parametrize(
    "convolution",
    [
        dense(SAME, (32, 32), 6),
        dense(SAME, (32, 32), 4),
        dense(POOLED, (32, 32), 6),
        dense(POOLED, (32, 32), 4),
        dense(Window((5, 5), pool=2), (28, 28), 1, channels=2),
        dense(SAME, (16, 64), 1, groups=6),
        dense(Window((1, 1), stride=(2, 2)), (16, 16), 4),
        dense(Window((3, 3), (2, 2), (1, 1)), (32, 32), 3, groups=2),
        dense(Window((7, 7), (2, 2), (3, 3)), (33, 47), 2, channels=2),
    ],
    ids=lambda own: f"{own.window.kernel}{own.window.pool}-{own.size}-{own.block}-{own.groups}",
)
def test_convolutions_as_networks_have_them(target: Target, pack: Pack, convolution: Convolution) -> None:
    """Whole numbers: every sum is exact. Among the images some whose rows are whole vectors, and whole kilobytes."""
    call = Call.of(convolution, target.lanes if pack is pack_panel else 1, Epilogue.RELU)
    call.check(any_packing(target, call, pack))


@pytest.mark.parametrize("pack", PACKINGS)
def test_part_of_the_outputs(target: Target, pack: Pack) -> None:
    """Fewer than the window makes, as before a pool that leaves out the last row and column."""
    call = Call.of(dense(SAME, (9, 19), 4), target.lanes if pack is pack_panel else 1, Epilogue.ADD)
    assert np.array_equal(any_packing(target, call, pack, (8, 18)), call.exact()[:, :, :8, :18])


@pytest.mark.parametrize("pack", PACKINGS)
@pytest.mark.parametrize("block", [6, 4])
@pytest.mark.parametrize("pool", [1, 2])
def test_a_number_that_is_none_is_not_hidden(target: Target, pack: Pack, block: int, pool: int) -> None:
    """Neither by a pool nor by ReLU, and it stays where it is seen: the same outputs are NaN as in torch."""
    call = Call.of(dense(Window((3, 3), padding=(1, 1), pool=pool), (9, 11), block), 1, Epilogue.RELU)
    x = np.repeat(call.x, target.lanes, 0) if pack is pack_panel else call.x
    x[:, 4, 3, 5] = np.nan
    call = replace(call, x=x, added=np.repeat(call.added, len(x), 0))
    exact = call.exact()
    assert 0 < np.isnan(exact).mean() < 0.5
    assert np.array_equal(any_packing(target, call, pack), exact, equal_nan=True)


@pytest.mark.parametrize("count", range(1, 14))
def test_tiles_go_through_every_vector(count: int) -> None:
    """Each once, but for the last tile, which may repeat its last."""
    own, result = Panel(1, 1, count, 0, 8), Panel(1, 1, count, 0, 8)
    tiles = pack_panel(np.ones((1, 1, 1, 1), dtype=bool), 1, Window((1, 1)), own, result, 8, 1).tiles
    assert tiles.registers == min(MOST_SUMS, count & -count)  # neighbours go together, if all do
    width, count = 8 * tiles.registers, count // tiles.registers
    places = tiles.origins.reshape(-1)
    assert np.array_equal(places, tiles.goals.reshape(-1))
    assert np.array_equal(places[:count], np.arange(count) * width)
    assert (places[count:] == places[count - 1]).all()
    assert len(places) - count < tiles.vectors <= TILES


def test_vectors_that_are_no_neighbours_are_no_pairs() -> None:
    """Neither of the inputs, with a stride, nor of the outputs, with a border."""
    keep = np.ones((1, 1, 1, 1), dtype=bool)
    strided = pack_panel(keep, 1, Window((1, 1), (1, 2)), Panel(1, 1, 8, 0, 8), Panel(1, 1, 4, 0, 8), 8, 1)
    bordered = pack_panel(keep, 1, Window((1, 1)), Panel(1, 4, 1, 0, 8), Panel(1, 4, 1, 1, 8), 8, 1)
    assert strided.tiles.registers == bordered.tiles.registers == 1


@pytest.mark.parametrize("block", [1, 2])
def test_the_last_column_that_sixteen_bits_count(target: Target, block: int) -> None:
    """Two channels of exactly half of what a block may have."""
    own, result = Panel(2, 128, 256, 0, target.lanes), Panel(1, 1, 1, 0, target.lanes)
    assert most_channels(own.rows * own.columns) == 2
    keep = np.zeros((1, 2, 128, 256), dtype=bool)
    keep[0, :, 0, 0] = keep[0, :, -1, -1] = True
    packed = pack_panel(keep, 1, Window((128, 256)), own, result, target.lanes, block)
    assert packed.pattern.blocks[-1].columns[-1] == block * 32768 - 1
    x = np.zeros((2, 128, 256, target.lanes), np.float32)
    x[0, 0, 0], x[0, -1, -1], x[1, 0, 0], x[1, -1, -1] = 1, 10, 100, 1000
    convolution = Convolution(Window((128, 256)), (128, 256), 1, keep, block, True, np.random.default_rng(0))
    call = Call(convolution, Epilogue.NONE, keep.astype(np.float32), np.zeros(1, np.float32), x, x)
    fences = Fences(at_end=True)
    y = fences.room(result.size)
    Runner(target, fences, call, packed, own, result).run(fences.given(x), 0, y, None)
    assert (y == 1111).all()
    with pytest.raises(KernelError, match="3 channels"):
        pack_panel(keep, 1, Window((128, 256)), own, result, target.lanes, 3)
