"""The units of a hybrid study, each a network's rows, and when the table has all of one.

A unit is what a kill can lose. Its last row is known by its kind, so that rows alone say what is finished.
"""

from __future__ import annotations

from collections.abc import Sequence

from tombola.compression.measured import BATCH_SIZES
from tombola.runs.rows import Row, rows_of
from tombola.studies.hybrid.config import HybridConfig
from tombola.studies.hybrid.cuts import BASE, DENSE, TICKET

UNIT = ("replicate", "network", "unit")
"""The columns that name what a cell or the clock leaves: `unit` is `forests` or `latency`."""
FORESTS, LATENCY = "forests", "latency"
PIXELS, PCA = "pixels", "pca"
MEASURED_REPLICATE = 0
"""Whose networks are timed."""


def unit_names(config: HybridConfig) -> list[str]:
    """The units of a replicate, in their order."""
    base = [BASE] if config.head is not None else []
    return [PIXELS, PCA, *base, DENSE, TICKET]


def whole_units(rows: Sequence[Row], replicate: int) -> set[str]:
    """The networks of a replicate whose forests are all in the table.

    A baseline has one row; of every other network the row of kind `network` comes last.
    """
    found = rows_of(rows, unit=FORESTS, replicate=replicate)
    return {row["network"] for row in found if row["kind"] == "network" or row["network"] in (PIXELS, PCA)}


def complete_replicates(rows: Sequence[Row], config: HybridConfig) -> set[int]:
    """The replicates of which every unit of forests is in the table, to its last row."""
    names = set(unit_names(config))
    return {replicate for replicate in {row["replicate"] for row in rows} if names <= whole_units(rows, replicate)}


def measured_networks(rows: Sequence[Row]) -> set[str]:
    """The networks whose latency is in the table: as many calls of the last batch size as of the first."""
    latencies = rows_of(rows, unit=LATENCY, replicate=MEASURED_REPLICATE)

    def calls(network: str, batch: int) -> int:
        return len(rows_of(latencies, network=network, batch=batch))

    networks = {row["network"] for row in latencies}
    return {name for name in networks if calls(name, BATCH_SIZES[0]) == calls(name, BATCH_SIZES[-1])}
