"""A map of numbers as colours, described once for every drawing, with what its colours mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Heatmap:
    """Rows of values from the top, coloured from 0 to `top` (None: the largest value); `unit` is the colour bar's.

    Without names for its columns and rows a map has no axes, as one of an image's pixels.
    """

    values: Sequence[Sequence[float]]
    unit: str
    title: str = ""
    x_title: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[str] = ()
    top: float | None = None

    @property
    def highest(self) -> float:
        """Where the colour scale ends; 1 for a map of zeros."""
        return (max(max(row) for row in self.values) if self.top is None else self.top) or 1.0

    @property
    def is_named(self) -> bool:
        return bool(self.columns or self.rows)
