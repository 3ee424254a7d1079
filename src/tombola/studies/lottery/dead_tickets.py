"""How many units of a ticket are dead, and what it needs without them: columns of its row, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tombola.compression.cost import count_flops
from tombola.compression.dead import dead_units, units_of_chain
from tombola.errors import TombolaError, one_line_by_name
from tombola.pruning import Masks
from tombola.runs.columns import count
from tombola.runs.rows import Row, rows_of

SHOWN = 4
"""Densities in a sentence."""


def dead_columns(model: nn.Module, masks: Masks, example: Tensor | None) -> Row:
    """`units`, `units_dead` and `flops_without_dead` of a ticket, null with a reason where they cannot be known.

    `example` is a batch of what the network takes, None where its examples are no tensors of one shape.
    """
    chain = units_of_chain(model, masks)
    if chain is not None:
        return {"units": chain.units, "units_dead": chain.dead, "flops_without_dead": 2 * chain.weights}
    if example is None:
        return _unknown("the task's examples are no tensors of one shape")
    try:
        found = dead_units(model, masks, example)
        flops = count_flops(model, example.shape[1:], found.masks, example.dtype)
    except TombolaError as error:
        return _unknown(str(error))
    except Exception as error:  # somebody's own network, in a tracer of torch's: a search does not end by that
        return _unknown(one_line_by_name(error))
    return {"units": found.units, "units_dead": found.dead, "flops_without_dead": flops.effective}


def dead_lines(rows: Sequence[Row]) -> list[str]:
    """What is said of one mode's tickets; nothing of runs that earlier versions began, which did not count them."""
    tickets = rows_of(rows, kind="training", branch="ticket")
    if not all("units_dead" in row for row in tickets):
        return []
    reasons = dict.fromkeys(str(row["dead_reason"]) for row in tickets if row.get("dead_reason"))
    said = [f"Dead units are not counted: {reason.removesuffix('.')}." for reason in reasons]
    known = [row for row in tickets if all(count(row.get(key)) for key in ("units", "units_dead"))]
    if not known:
        return said
    by_density: dict[float, list[int]] = {}
    for row in sorted(known, key=lambda row: row["round"]):
        by_density.setdefault(row["density"], []).append(row["units_dead"])
    dead = {density: sum(found) / len(found) for density, found in by_density.items()}
    some = [f"{number:.4g} with {density:.1%}" for density, number in dead.items() if number][-SHOWN:]
    if not some:
        return [*said, "No ticket has dead units."]
    last = max(row["round"] for row in known)
    return [
        *said,
        f"Dead units (no kept weight reaches or reads them), of {known[0]['units']:,}, mean over replicates: "
        f"{', '.join(some)} of the weights.{_without(rows_of(known, round=last))}",
    ]


def _without(last: Sequence[Row]) -> str:
    pairs = [(row["flops_effective"], row.get("flops_without_dead")) for row in last]
    if not all(count(part) for pair in pairs for part in pair):
        return ""
    effective, without = (sum(part) / len(pairs) / 1000 for part in zip(*pairs, strict=True))
    return f" Without them the last needs {without:,.1f} of its {effective:,.1f} kFLOPs."


def _unknown(reason: str) -> Row:
    return {"units": None, "units_dead": None, "flops_without_dead": None, "dead_reason": reason}
