"""Measured latency in the rows of a hybrid study: which call, by which engine, and which is fastest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tombola.compression.measured import BATCH_SIZES, DENSE
from tombola.reports.tables import Table
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.numbers import MISSING
from tombola.studies.base.speed import NOT_MEASURED, Speed, microseconds, reason_of, remarks
from tombola.studies.hybrid.units import NETWORK

TIMES = tuple(f"µs, batch {batch}" for batch in BATCH_SIZES)


def timed(
    rows: Iterable[Row], network: str, exit: str | None, features: str | None, batch: int, part: str = "whole"
) -> list[Row]:
    """The rows of one call that have a time, fastest engine first."""
    place = {"network": network, "exit": exit, "features": features, "batch": batch, "part": part}
    found = [row for row in rows_of(rows, kind="latency", **place) if row["seconds"] is not None]
    return sorted(found, key=lambda row: row["seconds"][1])


def fastest(rows: Iterable[Row], network: str, exit: str | None, features: str | None, batch: int) -> Row | None:
    """The whole call by its fastest engine; None when no engine was measured."""
    return next(iter(timed(rows, network, exit, features, batch)), None)


def by_torch(rows: Iterable[Row], network: str, exit: str | None, features: str | None, batch: int) -> Row | None:
    """The whole call with the network by torch."""
    found = timed(rows, network, exit, features, batch)
    return next((row for row in found if row["engine"].split(" + ")[0] == DENSE), None)


def clock(row: Row | None) -> str:
    """The median of a call in microseconds, for a table."""
    return MISSING if row is None else microseconds(row["seconds"])


def why_missing(rows: Iterable[Row], network: str, exit: str | None, features: str | None, batch: int) -> str:
    """Why a whole call has no time."""
    tried = rows_of(rows, kind="latency", network=network, exit=exit, features=features, batch=batch, part="whole")
    return next((reason for row in tried if (reason := reason_of(row))), NOT_MEASURED)


def apart(ours: Row, theirs: Row) -> bool:
    """Whether the quartiles of two calls lie apart, so that one is the faster."""
    return ours["seconds"][2] < theirs["seconds"][0] or theirs["seconds"][2] < ours["seconds"][0]


def latency_remarks(rows: Iterable[Row]) -> list[str]:
    """What could not be measured and why, and what was left to torch; a sentence each."""
    latencies = rows_of(rows, kind="latency")
    if not latencies:
        return ["Latency: not measured."]
    return remarks(
        Speed(row["batch"], None, row["seconds"], reason_of(row), tuple(row["on_torch"])) for row in latencies
    )


def latency_table(rows: Sequence[Row]) -> Table:
    """Every call measured: median and quartiles in microseconds, for each batch size."""
    calls: dict[tuple[str, ...], dict[int, Row]] = {}
    for row in rows_of(rows, kind="latency"):
        place = (NETWORK[row["network"]], row["exit"] or "whole network", row["features"] or "")
        calls.setdefault((*place, row["part"], row["engine"]), {})[row["batch"]] = row
    body = [(*call, *(_quartiles(found.get(batch)) for batch in BATCH_SIZES)) for call, found in calls.items()]
    return Table(("Network", "Exit", "Features", "Part", "Engine", *TIMES), body)


def _quartiles(row: Row | None) -> str:
    if row is None or row["seconds"] is None:
        return MISSING
    low, median, high = (microseconds([seconds] * 3) for seconds in row["seconds"])
    return f"{median} [{low}–{high}]"
