"""Which of several differences are shown: t tests of paired differences, corrected for how many are looked at.

Holm 1979 (A simple sequentially rejective multiple test procedure): with p(1) ≤ ... ≤ p(m) the adjusted p of the i-th
is the largest of (m - j + 1)·p(j) over j ≤ i, at most 1. A family tested at 5 % then has one false claim or more in at
most 5 % of studies, whatever the differences depend on.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from scipy.special import stdtr

from tombola.reports.intervals import CONFIDENCE, Estimate, detectable

Side = Literal["above", "below", "open"]
Tail = Literal["both", "below"]
"""Whether differences of either sign are looked for, or falls alone."""
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Judged:
    """One difference of a family: its interval (95 %, by itself), and whether the family's correction leaves it shown.

    `p` is adjusted after Holm; None where one replicate gives no spread. `detectable` is the true difference, in the
    unit of the difference, that is found in 80 % of studies of this size and spread, at the strictest level that Holm
    may ask for.
    """

    difference: Estimate
    p: float | None
    family: int
    tail: Tail = "both"

    @property
    def side(self) -> Side:
        """Where the difference is shown to lie to 0; `open` where no difference is shown."""
        if self.p is None or self.p >= 1 - CONFIDENCE:
            return "open"
        return "above" if self.difference.mean > 0 else "below"

    @property
    def detectable(self) -> float | None:
        if not self.difference.sd:
            return None
        level = (1 - CONFIDENCE) / self.family / (2 if self.tail == "both" else 1)
        return detectable(self.difference.sd, self.difference.n, 1 - level)


def judged(differences: Mapping[Key, Estimate], tail: Tail = "both") -> dict[Key, Judged]:
    """Every difference of one family, in the order given; those without an interval do not count in the family."""
    known = {key: p for key, found in differences.items() if (p := p_value(found, tail)) is not None}
    adjusted = dict(zip(known, holm([*known.values()]), strict=True))
    return {key: Judged(found, adjusted.get(key), max(1, len(known)), tail) for key, found in differences.items()}


def p_value(difference: Estimate, tail: Tail = "both") -> float | None:
    """Of Student's t test that the true difference is 0; None where there is no spread to test with."""
    if difference.sd is None:
        return None
    if not difference.sd:  # exact, by a resolution of 0
        certain = difference.mean != 0 if tail == "both" else difference.mean < 0
        return 0.0 if certain else 1.0
    t = difference.mean * math.sqrt(difference.n) / difference.sd
    below = float(stdtr(difference.n - 1, -abs(t) if tail == "both" else t))
    return 2 * below if tail == "both" else below


def holm(p_values: Sequence[float]) -> list[float]:
    """The adjusted p values, in the order given."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        least = max(least, (len(p_values) - rank) * p_values[position])
        adjusted[position] = min(1.0, least)
    return adjusted
