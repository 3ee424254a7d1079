"""Plans: which kernel each layer of a chain takes for a number of rows; `compiled` makes machine code of them.

Which choice is best is measured in `tuning`. A plan for 64 rows serves 50 or 256 as well: rows are taken together as
*panels*, of 64 in chains and of 16 or 64 in graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tombola.kernels.packing import MOST_COLUMNS

PANEL = 64
"""Rows that go through a chain together."""


class Form(StrEnum):
    """How a chain runs: row by row, panel by panel, or as torch does it."""

    VECTORS = "vectors"
    PANELS = "panels"
    TORCH = "torch"


class Kernel(StrEnum):
    """What a layer runs on. ROWS and COLUMNS take one vector, COLUMNS skipping its zeros; PANEL takes a panel.

    DENSE is torch's product with all weights, DENSE_COLUMNS one that skips zeros of a vector. SIDE_BY_SIDE takes one
    vector, 16 rows at a time. Convolutions of one example go by SHIFTED_ROWS or ALL_WINDOWS (`kernels.convolutions`).
    """

    ROWS = "rows"
    COLUMNS = "columns"
    DENSE_COLUMNS = "dense columns"
    SIDE_BY_SIDE = "side by side"
    PANEL = "panel"
    DENSE = "dense"
    SHIFTED_ROWS = "shifted rows"
    ALL_WINDOWS = "all windows"


WHOLE = (Kernel.DENSE, Kernel.DENSE_COLUMNS, Kernel.SIDE_BY_SIDE)
"""What does not go by blocks."""


@dataclass(frozen=True)
class Choice:
    """A layer's kernel. `seconds`: measured for all rows of the plan, or None.

    `block`: how many inputs (of COLUMNS: outputs, of a convolution: input channels) it goes through at a time, so that
    they stay in a fast cache.
    """

    kernel: Kernel
    block: int = MOST_COLUMNS
    seconds: float | None = None

    def __str__(self) -> str:
        whole = self.kernel in WHOLE or self.block == MOST_COLUMNS
        return str(self.kernel) if whole else f"{self.kernel} by {self.block}"


@dataclass(frozen=True)
class Plan:
    """For `rows` rows. `batch` is the model's batch that brings them. `seconds` and `dense` are the measured times of
    the whole chain as planned and on torch, None where nothing was measured. `panel`: rows that go together."""

    batch: int
    rows: int
    form: Form
    choices: tuple[Choice, ...]
    seconds: float | None = None
    dense: float | None = None
    panel: int = PANEL
