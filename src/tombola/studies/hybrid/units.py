"""The units of a hybrid study, and when the table has all of one: each network's rows, and all latencies as one.

A unit is what a kill can lose. Its last row is known by its kind, so that rows alone say what is finished.
"""

from __future__ import annotations

from collections.abc import Sequence

from tombola.compression.measured import BATCH_SIZES
from tombola.runs.rows import Row, rows_of
from tombola.studies.hybrid.config import HybridConfig
from tombola.studies.hybrid.cuts import BASE, DENSE, HEAD, HEAD_TICKET, TICKET

UNIT = ("replicate", "unit")
"""The columns that name what a cell or the clock leaves: `unit` is the network's name, or `latency`."""
LATENCY = "latency"
PIXELS, PCA = "pixels", "pca"
NETWORK = {
    "pixels": "raw pixels",
    "pca": "PCA",
    "base": "frozen base",
    "head": "base + dense head",
    "head ticket": "base + head's ticket",
    "dense": "dense",
    "ticket": "ticket",
}
"""The networks and baselines as people call them, in the order of tables."""
MEASURED_REPLICATE = 0
"""Whose networks are timed."""


def unit_names(config: HybridConfig) -> list[str]:
    """The units of a replicate, in their order."""
    base = [BASE, HEAD, HEAD_TICKET] if config.head is not None else []
    return [PIXELS, PCA, *base, DENSE, TICKET]


def whole_units(rows: Sequence[Row], replicate: int) -> set[str]:
    """The networks of a replicate whose rows are all in the table, latencies apart.

    A baseline has one row; of every other network the row of kind `network` comes last.
    """
    found = rows_of(rows, replicate=replicate)
    return {row["unit"] for row in found if row["kind"] == "network" or row["unit"] in (PIXELS, PCA)}


def complete_replicates(rows: Sequence[Row], config: HybridConfig) -> set[int]:
    """The replicates of which every network is in the table, to its last row."""
    names = set(unit_names(config))
    return {replicate for replicate in {row["replicate"] for row in rows} if names <= whole_units(rows, replicate)}


def is_measured(rows: Sequence[Row]) -> bool:
    """Whether all latencies are in the table: of the last batch size, which comes last, as many as of the first."""
    first, last = (len(rows_of(rows, unit=LATENCY, batch=batch)) for batch in (BATCH_SIZES[0], BATCH_SIZES[-1]))
    return first == last > 0
