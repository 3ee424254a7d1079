"""Looks: how much error each verdict of a run may cost, so that all of them together cost no more than 5 %.

A run is looked at whenever its verdict is made, and it is extended because of what was seen: each look is another
chance to be misled, and the number of replicates of the next one is chosen from the data. So every number of replicates
has its own level, fixed by the first look alone, and the levels of *all* numbers add up to at most 5 %. By Bonferroni's
inequality a false claim then comes at most that often, whatever path of extensions is taken and for whatever reason it
ends. Most is spent on the first look, most of the rest on its doublings, which are what the verdict advises; other
numbers may be looked at too, but cost a wide interval.

Looks are rows of the run's own table. Where a table has none, it may be anybody's who looked at 5 replicates (the
default) or at 10 before: these two then share what is spent on a first look.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tombola.reports.intervals import POWER, power
from tombola.runs.rows import Row, rows_of

MOST_REPLICATES = 10_000
"""More replicates than this are not advised."""


@dataclass(frozen=True)
class Levels:
    """One-sided probabilities of error: of the comparison with dense, and of that with each control."""

    dense: float
    controls: float


FIRST = Levels(0.04, 0.025)
"""Controls get less of the 5 %: the density was chosen by the same networks' validation accuracy, and chance that
helped a ticket there helps it on test. In simulated studies without an effect the error is up to 1.5 times as large."""
LATER = 0.01
"""What all later looks spend together."""
AT_DOUBLINGS = 0.8
"""The fraction of a doubling's part that is spent on it; the numbers between it and the last one share the rest, at the
first doubling with those below the first look."""
UNRECORDED = (5, 10)
"""Where no look is recorded: the numbers of replicates that share what is spent on a first look."""


@dataclass(frozen=True)
class Looks:
    """What a table says of earlier looks: the number of replicates of the first one, None where none is recorded."""

    first: int | None

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Looks:
        # In the order in which they were taken. One replicate has no interval: nothing is claimed, and nothing spent.
        counts = [row["replicates"] for row in rows_of(rows, kind="look") if row["replicates"] > 1]
        return cls(counts[0] if counts else None)

    def levels(self, replicates: int) -> Levels:
        """The levels of a look at so many replicates."""
        if self.first is not None:
            return FIRST if replicates == self.first else _both(_later(replicates, self.first))
        start, second = UNRECORDED
        if replicates in UNRECORDED:
            return Levels(FIRST.dense / 2, FIRST.controls / 2)
        if replicates < start:  # these share what `_later` has for the second number, which has its own
            return _both(_later(second, start) / (start - 2))
        return _both(_later(replicates, start))

    def advised(self, difference: float, sd: float, replicates: int, controls: bool = False) -> int | None:
        """How many replicates would show a true `difference` in 80 % of studies, if the standard deviation stays.

        The next doublings of the first look are tried; None where even `MOST_REPLICATES` would not do.
        """
        if difference <= 0:
            return None
        for count in self._doublings(replicates):
            levels = self.levels(count)
            if power(difference, sd, count, 1 - (levels.controls if controls else levels.dense)) >= POWER:
                return count
        return None

    def _doublings(self, replicates: int) -> Iterator[int]:
        """The numbers of replicates after this one on which most is spent."""
        count = self.first or UNRECORDED[0]
        while count <= MOST_REPLICATES:
            if count > replicates:
                yield count
            count *= 2


def look_row(replicates: int) -> Row:
    """The row that records a look at replicates 0 to `replicates` - 1; it belongs to the last of them."""
    unit = {"replicate": replicates - 1, "rewind": None, "round": 0, "branch": "look"}
    return {"kind": "look", **unit, "replicates": replicates}


def _later(replicates: int, first: int) -> float:
    """The level of a later look: half of `LATER` until the first doubling, a quarter until the second, and so on."""
    doubling, part = 2 * first, LATER / 2
    while doubling < replicates:
        doubling, part = 2 * doubling, part / 2
    between = doubling - doubling // 2 - 1
    if doubling == 2 * first:
        between += first - 2  # fewer replicates than at the first look, asked for afterwards
    return AT_DOUBLINGS * part if replicates == doubling else (1 - AT_DOUBLINGS) * part / between


def _both(level: float) -> Levels:
    return Levels(level, level)
