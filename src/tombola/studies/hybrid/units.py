"""The units of a hybrid study: what their rows hold, and when the table has all of one.

Each network's rows are a unit, and all latencies are one more.

A unit is what a kill can lose. Its last row is known by its kind, so that rows alone say what is finished.
"""

from __future__ import annotations

from collections.abc import Sequence

from tombola.compression.measured import BATCH_SIZES
from tombola.runs.columns import Check, Schema, amount, count, fraction, number, optional, text, truth
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.speed import LATENCY as LATENCY_COLUMNS
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

_UNIT: dict[str, Check] = {"replicate": count, "unit": text}
_PLACE: dict[str, Check] = {**_UNIT, "network": text, "exit": optional(text), "features": optional(text)}
_COSTS: dict[str, Check] = {"flops_dense": count, "flops_effective": count, "density": fraction}

SCHEMA: Schema = {
    "forest": {
        **_PLACE,
        **_COSTS,
        **dict.fromkeys((f"{part}_{name}" for part in ("validation", "test") for name in ("accuracy", "f1")), fraction),
        **dict.fromkeys(("inputs", "train_examples", "test_examples", "trees", "nodes", "forest_bytes"), count),
        "cnn_bytes": count,
        "comparisons": amount,
        "onnx_checked": count,
        "onnx_error": number,
        "seconds_fit": amount,
    },
    "network": {
        **_UNIT,
        **_COSTS,
        **dict.fromkeys(("validation_accuracy", "test_accuracy"), optional(fraction)),
        "network": text,
        "bytes": count,
        "reason": optional(text),
    },
    "gate": {**_PLACE, "part": text, "threshold": number, "chosen": truth},
    "latency": {**_PLACE, **LATENCY_COLUMNS, "part": text},
}
"""What rows hold by their kind: looked at when a table is read."""


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
