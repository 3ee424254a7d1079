"""What rows of measured latency come to, in every study: medians, speed-ups, and what has to be said of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tombola.compression.measured import BATCH_SIZES, DENSE, SPARSE
from tombola.runs.columns import Check, amount, count, optional, text
from tombola.runs.rows import Row

NOT_MEASURED = "not measured"
LATENCY: dict[str, Check] = {
    "batch": count,
    "engine": text,
    "reason": optional(text),
    "seconds": optional(lambda value: isinstance(value, list) and all(map(amount, value))),
}
"""What rows of latency hold in every study, beside what they are of."""
IMAGES = 64
"""Test images that are measured on."""
FORMAT = f"float32, one thread; dense by {DENSE}, ticket on {SPARSE}, taking turns; disturbed blocks measured again"


@dataclass(frozen=True)
class Speed:
    """One network in one batch size: quartiles (lower, median, upper) of seconds per call, dense and on sparse kernels.

    What was not measured is None, and `reason` says why.
    """

    batch: int
    dense: list[float] | None
    sparse: list[float] | None
    reason: str | None
    on_torch: tuple[str, ...] = ()

    @property
    def ratio(self) -> float | None:
        """How many times faster the sparse kernels are, by medians."""
        return None if self.dense is None or self.sparse is None else self.dense[1] / self.sparse[1]

    @property
    def entry(self) -> dict[str, Any]:
        """For a program."""

        def timed(engine: str, quartiles: list[float] | None) -> dict[str, Any]:
            return {"engine": engine, "seconds": quartiles and quartiles[1], "quartiles": quartiles}

        return {
            "batch": self.batch,
            "dtype": "float32",
            "threads": 1,
            "dense": timed(DENSE, self.dense),
            "ticket": timed(SPARSE, self.sparse),
            "speed_up": self.ratio,
            "left_to_torch": list(self.on_torch),
            "reason": self.reason,
        }


def speeds_of(rows: Iterable[Row], batch_sizes: Sequence[int] = BATCH_SIZES) -> list[Speed]:
    """The speeds of one network from its rows of kind `latency`, one for every batch size, measured or not."""
    found = {(row["batch"], row["engine"]): row for row in rows}
    speeds = []
    for batch in batch_sizes:
        dense, sparse = found.get((batch, DENSE)), found.get((batch, SPARSE))
        if dense is None or sparse is None:
            speeds.append(Speed(batch, None, None, NOT_MEASURED))
        else:
            on_torch = tuple(sparse["on_torch"])
            speeds.append(Speed(batch, dense["seconds"], sparse["seconds"], reason_of(sparse), on_torch))
    return speeds


def reason_of(row: Row) -> str | None:
    """Why a row of latency has no seconds; rows from before thread time was looked at say nothing of the clock."""
    reason: str | None = row["reason"] or row.get("clock")
    return reason


def microseconds(quartiles: list[float] | None) -> str:
    """The median, in microseconds with three figures."""
    if quartiles is None:
        return "–"
    value = 1e6 * quartiles[1]
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(ratio: float | None) -> str:
    """`5.5 ×`."""
    return "–" if ratio is None else f"{ratio:.1f} ×" if ratio >= 9.95 else f"{ratio:.2f} ×"


def remarks(speeds: Iterable[Speed]) -> list[str]:
    """What is missing and why, and what was left to torch; one sentence each."""
    speeds = list(speeds)
    reasons = dict.fromkeys(speed.reason for speed in speeds if speed.reason)
    left = dict.fromkeys(name for speed in speeds for name in speed.on_torch)
    said = ["Latency: not measured." if reason == NOT_MEASURED else f"Not measured: {reason}." for reason in reasons]
    return said + ([f"Left to torch: {', '.join(left)}."] if left else [])
