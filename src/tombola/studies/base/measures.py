"""What networks are compared by, as rows name it and as studies write it: in its unit, better as positive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tombola.errors import RunFolderError
from tombola.reports.intervals import Bounds, Estimate
from tombola.reports.tables import plus_minus
from tombola.studies.base.numbers import amount
from tombola.training.task import ACCURACY, Measure

__all__ = ["ACCURACY", "Scale", "measure_from"]


def measure_from(facts: Mapping[str, Any], where: str) -> Measure:
    """The measure that `asdict` of one has recorded; RunFolderError, which begins with `where`, for anything else."""
    name, higher, scale, unit = (facts.get(key) for key in ("name", "higher_is_better", "scale", "unit"))
    title = facts.get("title", "")
    known = isinstance(name, str) and isinstance(higher, bool) and isinstance(scale, int | float)
    if not known or not isinstance(unit, str) or not isinstance(title, str):
        raise RunFolderError(f"{where}: does not say what its networks are compared by, it is damaged")
    assert isinstance(name, str), "looked at above"
    return Measure(name, bool(higher), float(scale or 1.0), unit, title)


@dataclass(frozen=True)
class Scale:
    """How values of a measure are written: as `measure.scale` times the number, with so many decimal `places`."""

    measure: Measure = ACCURACY
    places: int = 2

    @classmethod
    def of(cls, measure: Measure, tolerance: float) -> Scale:
        """As many places as give the tolerance three figures; of accuracies two, whatever it is."""
        if measure == ACCURACY:
            return cls()
        return cls(measure, max(0, 2 - math.floor(math.log10(tolerance))))

    @property
    def unit(self) -> str:
        """With a space before it, or nothing."""
        return f" {self.measure.unit}" if self.measure.unit else ""

    @property
    def axis(self) -> str:
        """`accuracy (%)`, `cross-entropy (nats a token)`: for the title of an axis with values."""
        if self.measure == ACCURACY:
            return "accuracy (%)"
        if self.measure.unit.split()[:1] == [self.measure.words]:
            return self.measure.unit
        return f"{self.measure.words} ({self.measure.unit})" if self.measure.unit else self.measure.words

    @property
    def direction(self) -> str:
        """What has to be said of gaps where less is better; nothing where more is."""
        if self.measure.higher_is_better:
            return ""
        return (
            f" Differences in {self.measure.words} are positive where the ticket is better, which is where it has less."
        )

    def said(self, number: float) -> str:
        """`97.1%`, `1.234 nats a token`: a number of the measure itself, before it is scaled."""
        if self.measure == ACCURACY:
            return f"{number:.1%}"
        return f"{number * self.measure.scale:.4g}{self.unit}"

    def amount(self, value: float) -> str:
        """`1 point`, `0.05 nats a token`: a number that a person wrote."""
        return amount(value, self.measure.unit)

    def shown(self, value: Estimate) -> str:
        """`97.13 ± 0.31`, for a table."""
        return plus_minus(value, self.places)

    def gap(self, value: float, unit: bool = True) -> str:
        """`+0.34 points`."""
        return f"{value:+.{self.places}f}{self.unit if unit else ''}"

    def bounded(self, bounds: Bounds) -> str:
        """`+0.34 points, at least -0.10`: the mean and its one-sided lower bound."""
        bound = "" if bounds.lower is None else f", at least {self.gap(bounds.lower, unit=False)}"
        return f"{self.gap(bounds.mean)}{bound}"
