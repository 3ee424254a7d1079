"""Tables of one parent and its child, for the terminal, the page and documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tombola.reports.tables import Table
from tombola.runs.rows import Row
from tombola.studies.single.metrics import CHECKS


def _counted(flops: int | None) -> str:
    return "not countable" if flops is None else f"{flops:,}"


LINES: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("test accuracy", lambda row: f"{row['test_accuracy']:.2%}"),
    ("test macro F1", lambda row: f"{row['test_f1']:.4f}"),
    ("validation accuracy", lambda row: f"{row['validation_accuracy']:.2%}"),
    ("weights kept", lambda row: f"{row['kept']:,} of {row['weights']:,}"),
    ("sparsity", lambda row: f"{row['sparsity']:.2%}"),
    ("parameters kept", lambda row: f"{row['parameters_kept']:,} of {row['parameters']:,}"),
    ("FLOPs of kept weights", lambda row: _counted(row["flops_effective"])),
    ("bytes, dense float32", lambda row: f"{row['bytes_dense']:,}"),
    ("bytes, bit mask + values", lambda row: f"{row['bytes_packed']:,}"),
)
STAGES_NOTE = (
    "FLOPs are of one example's forward pass, a multiply-add being two; those of kept weights are what a sparse engine "
    "would do. Zeros in a dense file make nothing smaller or faster."
)


def stages_table(stages: Sequence[Row]) -> Table:
    """One column per stage: before, pruned, fine-tuned; or the trained parent alone."""
    lines = [*LINES]
    structure = stages[0].get("structure", "weight")
    if structure != "weight":
        lines.insert(3, (f"units kept ({structure})", lambda row: f"{row['units_kept']:,} of {row['units']:,}"))
    rows = [(title, *(write(stage) for stage in stages)) for title, write in lines]
    return Table(("", *(stage["stage"] for stage in stages)), rows)


def layers_table(layers: Sequence[Row]) -> Table:
    """Sparsity per layer."""
    rows = [
        (
            row["layer"].removesuffix(".weight"),
            "×".join(map(str, row["shape"])),
            f"{row['weights']:,}",
            f"{row['kept']:,}",
            f"{1 - row['kept'] / row['weights']:.2%}",
        )
        for row in layers
    ]
    return Table(("Layer", "Shape", "Weights", "Kept", "Sparsity"), rows)


def check_line(checks: Mapping[str, Any]) -> str:
    """The promises that were looked at, and whether they were kept."""
    looked_at = [(promise, checks[check]) for check, promise in CHECKS.items() if checks.get(check) is not None]
    said = [promise if kept else f"NOT {promise}" for promise, kept in looked_at]
    return f"Checked: {'; '.join(said)}." if said else ""
