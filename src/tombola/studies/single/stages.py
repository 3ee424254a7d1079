"""Tables of one parent and its child, for the terminal, the page and documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tombola.compression.measured import DENSE, SPARSE
from tombola.reports.tables import MISSING, Table
from tombola.runs.columns import fraction
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.speed import Speed, microseconds, remarks, speeds_of, times
from tombola.studies.single.metrics import CHECKS


def _counted(flops: int | None, instead: str = "not countable") -> str:
    return instead if flops is None else f"{flops:,}"


LINES: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("test accuracy", lambda row: f"{row['test_accuracy']:.2%}"),
    ("test macro F1", lambda row: f"{row['test_f1']:.4f}"),
    ("validation accuracy", lambda row: f"{row['validation_accuracy']:.2%}"),
    ("weights kept", lambda row: f"{row['kept']:,} of {row['weights']:,}"),
    ("sparsity", lambda row: f"{row['sparsity']:.2%}"),
    ("parameters kept", lambda row: f"{row['parameters_kept']:,} of {row['parameters']:,}"),
    ("FLOPs of kept weights", lambda row: _counted(row["flops_effective"])),
    ("FLOPs without dead units", lambda row: _counted(row.get("flops_without_dead"), "not known exactly")),
    ("bytes, dense float32", lambda row: f"{row['bytes_dense']:,}"),
    ("bytes, bit mask + values", lambda row: f"{row['bytes_packed']:,}"),
)
STAGES_NOTE = (
    "FLOPs are of one example's forward pass, a multiply-add being two; those of kept weights are what a sparse engine "
    "would do, those of dead units included (that no kept weight reaches or reads). On torch zeros make nothing "
    "smaller or faster."
)
LATENCY_NOTE = (
    f"Latency is the median time of a call, measured on this machine on test images: float32, one thread; {DENSE} and "
    f"{SPARSE} taking turns. Blocks in which other programs had the processor are measured again. Below 1 × torch is "
    "faster; other dense engines may be faster than it."
)
WHAT_HELPS = (
    "Hardly anything passes there, and the whole network may fail. What helps: the distribution erk, the criterion "
    "lamp, protecting these layers, a higher min_keep or a lower sparsity."
)


def stages_table(stages: Sequence[Row], latencies: Sequence[Row] = ()) -> Table:
    """One column per stage: before, pruned, fine-tuned; or the trained parent alone, whose latency nobody asked for."""
    lines = [*LINES]
    if all("test_majority_accuracy" in stage for stage in stages):  # older runs did not measure it
        lines.insert(1, ("most frequent class alone", lambda row: f"{row['test_majority_accuracy']:.2%}"))
    if any(fraction(stage.get("averaged_test_accuracy")) for stage in stages):  # of those that were trained here
        lines.insert(1, ("test accuracy, averaged weights", _averaged))
    structure = stages[0].get("structure", "weight")
    if structure != "weight":
        lines.insert(-6, (f"units kept ({structure})", lambda row: f"{row['units_kept']:,} of {row['units']:,}"))
    rows = [(title, *(write(stage) for stage in stages)) for title, write in lines]
    if len(stages) > 1:
        speeds = [speeds_of(rows_of(latencies, stage=stage["stage"])) for stage in stages]
        for same_batch in zip(*speeds, strict=True):
            batch = same_batch[0].batch
            rows.append((f"latency, batch {batch}, torch", *(_dense_cell(speed) for speed in same_batch)))
            rows.append((f"latency, batch {batch}, sparse kernels", *(_sparse_cell(speed) for speed in same_batch)))
    return Table(("", *(stage["stage"] for stage in stages)), rows)


def _averaged(stage: Row) -> str:
    found = stage.get("averaged_test_accuracy")
    return f"{found:.2%}" if fraction(found) else MISSING


def _dense_cell(speed: Speed) -> str:
    return "not measured" if speed.dense is None else f"{microseconds(speed.dense)} µs"


def _sparse_cell(speed: Speed) -> str:
    return "not measured" if speed.sparse is None else f"{microseconds(speed.sparse)} µs ({times(speed.ratio)})"


def stages_note(stages: Sequence[Row], latencies: Sequence[Row]) -> str:
    """What the numbers of a stages table are."""
    unseen = dict.fromkeys(name for stage in stages for name in stage.get("flops_unseen") or ())
    as_dense = [f"FLOPs count {', '.join(unseen)} as dense: the model computes with a copy of it."] if unseen else []
    if len(stages) == 1:
        return " ".join([STAGES_NOTE, *as_dense])
    said = remarks(speed for stage in stages for speed in speeds_of(rows_of(latencies, stage=stage["stage"])))
    return " ".join([STAGES_NOTE, *as_dense, *([LATENCY_NOTE] if latencies else []), *said])


def layers_note(layers: Sequence[Row]) -> str:
    """Which layers are left nearly empty (marked in the table), and what helps; often nothing."""
    names = [row["layer"].removesuffix(".weight") for row in layers if row.get("nearly_empty")]
    return f"! Nearly empty: {', '.join(names)}. {WHAT_HELPS}" if names else ""


def layers_table(layers: Sequence[Row]) -> Table:
    """Sparsity per layer; an exclamation mark where next to nothing is left (see `layers_note`)."""
    rows = [
        (
            row["layer"].removesuffix(".weight"),
            "×".join(map(str, row["shape"])),
            f"{row['weights']:,}",
            f"{row['kept']:,}",
            (f"{1 - row['kept'] / row['weights']:.2%}" if row["weights"] else "–")
            + (" !" if row.get("nearly_empty") else ""),
        )
        for row in layers
    ]
    return Table(("Layer", "Shape", "Weights", "Kept", "Sparsity"), rows)


def check_line(checks: Mapping[str, Any]) -> str:
    """What was checked, and what was found not to be so."""
    looked_at = [(what, checks[check]) for check, what in CHECKS.items() if checks.get(check) is not None]
    said = [what if kept else f"NOT {what}" for what, kept in looked_at]
    return f"Checked: {'; '.join(said)}." if said else ""
