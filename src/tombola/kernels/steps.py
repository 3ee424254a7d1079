"""Steps of programs, by what they do: products of a layer, changes of layout.

A layer's values come as one array per block of its pattern (`packing.values_of`); whoever trains them owns them.
"""

from __future__ import annotations

from collections.abc import Sequence

from tombola.kernels.layouts import FROM_PANEL, TO_PANEL
from tombola.kernels.packing import Block, Floats, Pattern, in_chunks
from tombola.kernels.products import Epilogue, panel_product
from tombola.kernels.program import Argument, Place, Step, Where
from tombola.kernels.side_by_side import SIDE_BY_SIDE, SideBySide
from tombola.kernels.vectors import COLUMNS_TIMES_VECTOR, DENSE_COLUMNS_TIMES_VECTOR, ROWS_TIMES_VECTOR

NOWHERE = Where(Place.NOWHERE)


def to_panel(count: int, features: int, x: Where, y: Where, width: int) -> Step:
    """Examples (count, features) to a panel (features, width), its further examples 0."""
    return Step(TO_PANEL, (count, features, x, y, width))


def from_panel(count: int, features: int, x: Where, width: int, y: Where) -> Step:
    """A panel (features, width) to examples (count, features)."""
    return Step(FROM_PANEL, (count, features, x, width, y))


def panel_products(
    pattern: Pattern,
    values: Sequence[Floats],
    bias: Floats,
    x: Where,
    y: Where,
    width: int,
    epilogue: Epilogue = Epilogue.NONE,
    gate: Where = NOWHERE,
) -> list[Step]:
    """y = W x + bias on panels of `width` examples, block after block of the columns; the epilogue after the last."""
    last = len(pattern.blocks) - 1
    steps = []
    for number, (block, own) in enumerate(zip(pattern.blocks, values, strict=True)):
        finish = epilogue if number == last else Epilogue.NONE
        inputs = Where(x.place, x.offset + block.first * width)
        kernel = panel_product(number == 0, finish)
        steps.append(Step(kernel, (*_matrix(pattern, block, own, bias), inputs, y, width, width, gate)))
    return steps


def rows_times_vector(
    pattern: Pattern, values: Sequence[Floats], bias: Floats, x: Where, y: Where, relu: bool
) -> list[Step]:
    """y = W x + bias for one example, row by row, and max(·, 0) of it where `relu`."""
    last = len(pattern.blocks) - 1
    steps = []
    for number, (block, own) in enumerate(zip(pattern.blocks, values, strict=True)):
        inputs = Where(x.place, x.offset + block.first)
        rest = (inputs, y, int(number == 0), int(relu and number == last))
        steps.append(Step(ROWS_TIMES_VECTOR, (*_matrix(pattern, block, own, bias), *rest)))
    return steps


def columns_times_vector(
    transposed: Pattern, values: Sequence[Floats], bias: Floats, x: Where, y: Where, relu: bool, scratch: Where
) -> list[Step]:
    """The same from the pattern of W': inputs that are 0 cost nothing. `scratch`: see `vectors.columns_scratch`."""
    columns = transposed.shape[0]
    steps = []
    for block, own in zip(transposed.blocks, values, strict=True):  # each has outputs of its own
        outputs, chunks = Where(y.place, y.offset + block.first), in_chunks(block, own)
        matrix: tuple[Argument, ...] = (columns, block.width, chunks.starts, chunks.columns, chunks.values)
        steps.append(Step(COLUMNS_TIMES_VECTOR, (*matrix, bias[block.first :], x, outputs, int(relu), scratch)))
    return steps


def side_by_side(packed: SideBySide, bias: Floats, x: Where, y: Where, relu: bool) -> list[Step]:
    """The same with 16 rows at a time."""
    matrix = (len(bias), packed.starts, packed.firsts, packed.lanes, packed.values)
    return [Step(SIDE_BY_SIDE, (*matrix, bias, x, y, int(relu)))]


def dense_columns_times_vector(
    transposed: Floats, bias: Floats, x: Where, y: Where, relu: bool, scratch: Where
) -> list[Step]:
    """The same from W' (inputs, stride) with all its weights. `scratch` has room for inputs + stride numbers."""
    columns, stride = transposed.shape
    arguments = (columns, len(bias), stride, transposed, bias, x, y, int(relu), scratch)
    return [Step(DENSE_COLUMNS_TIMES_VECTOR, arguments)]


def _matrix(pattern: Pattern, block: Block, values: Floats, bias: Floats) -> tuple[Argument, ...]:
    return (pattern.shape[0], block.starts, block.columns, values, bias)
