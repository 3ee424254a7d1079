"""A table of values as coloured cells: rows by columns, coloured around a reference, what is missing hatched.

`heatmap` is for maps of numbers alone; here each cell also says its number. Nothing here knows a drawing library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """A value and how it is written, one line or more; without a value it is hatched, for a `reason`."""

    value: float | None
    text: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Grid:
    """Cells in rows from the top; `reference` is what they are coloured around: what it is called, and its value.

    Without a reference cells have no colour: there is nothing that they would be better or worse than. Colours are
    those of distances, and end at the largest one, or at `least`: so that noise looks pale.
    """

    cells: Sequence[Sequence[Cell]]
    rows: Sequence[str]
    columns: Sequence[str]
    title: str = ""
    x_title: str = ""
    reference: tuple[str, float] | None = None
    more_is_better: bool = True
    least: float = 0.0

    @property
    def reach(self) -> float:
        """The distance from the reference at which colours end; 1 where there is none."""
        if self.reference is None:
            return 1.0
        known = [cell.value for row in self.cells for cell in row if cell.value is not None]
        return max([self.least, *(abs(value - self.reference[1]) for value in known)]) or 1.0

    def strength(self, cell: Cell) -> float | None:
        """How much better (to 1) or worse (to -1) a cell is than the reference; None where it has no value.

        Examples:
            >>> grid = Grid([[Cell(3.0), Cell(1.0)]], ["a"], ["x", "y"], reference=("dense", 2.0), more_is_better=False)
            >>> [grid.strength(cell) for cell in grid.cells[0]]
            [-1.0, 1.0]
        """
        if cell.value is None:
            return None
        if self.reference is None:
            return 0.0
        return (cell.value - self.reference[1]) / self.reach * (1 if self.more_is_better else -1)

    @property
    def reasons(self) -> list[str]:
        """Why cells are empty, each reason once, in the order of the cells."""
        return list(dict.fromkeys(cell.reason for row in self.cells for cell in row if cell.value is None))
