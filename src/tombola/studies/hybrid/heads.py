"""What pruning the head of a frozen base can save: weights and bytes, hardly FLOPs. A pure function of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tombola.studies.base.numbers import begun, kilo, mega, percent
from tombola.studies.hybrid.questions import Lottery, not_run
from tombola.studies.hybrid.summaries import Measured
from tombola.studies.lottery.origins import NO_MATTER

FLOAT32 = 4


@dataclass(frozen=True)
class Head:
    """The head's ticket of the target density, means over replicates: FLOPs of one example, weights, and their bytes.

    `packed_bytes` are those of one bit per weight and the kept values, or of dense weights where these are fewer: of
    the whole head at once, where `compression.cost.count_size` packs layer by layer and counts biases. `base_flops` is
    None where no base was measured.
    """

    flops_dense: float
    flops_effective: float
    kept: float
    total: int
    base_flops: float | None
    ticket: str

    @property
    def dense_bytes(self) -> int:
        return FLOAT32 * self.total

    @property
    def packed_bytes(self) -> float:
        return min(self.dense_bytes, math.ceil(self.total / 8) + FLOAT32 * self.kept)

    def of_whole(self, flops: float) -> float | None:
        """A fraction of the FLOPs of base and dense head."""
        return None if self.base_flops is None else flops / (self.base_flops + self.flops_dense)


def head_sentences(lottery: Lottery | None, base: Measured | None) -> list[str]:
    """Whether the head can move FLOPs, and what its ticket saves instead."""
    head = _head(lottery, base)
    if head is None:
        return [f"{begun(not_run('head'))}: what its ticket saves is not known."]
    return [_flops_sentence(head), _weights_sentence(head)]


def head_numbers(lottery: Lottery | None, base: Measured | None) -> dict[str, Any]:
    head = _head(lottery, base)
    if head is None:
        return {"reason": not_run("head")}
    return {
        "flops_dense": head.flops_dense,
        "flops_effective": head.flops_effective,
        "base_flops": head.base_flops,
        "fraction_of_flops": head.of_whole(head.flops_dense),
        "fraction_of_flops_saved": head.of_whole(head.flops_dense - head.flops_effective),
        "weights": head.total,
        "weights_kept": head.kept,
        "bytes_dense": head.dense_bytes,
        "bytes_packed": head.packed_bytes,
        "ticket": None if lottery is None else lottery.ticket_numbers,
        "reason": None if head.base_flops is not None else "no base was measured",
    }


def _flops_sentence(head: Head) -> str:
    own = f"dense {mega(head.flops_dense)} MFLOPs; its ticket, {head.ticket}: {mega(head.flops_effective)}"
    whole, saved = head.of_whole(head.flops_dense), head.of_whole(head.flops_dense - head.flops_effective)
    if whole is None or saved is None or head.base_flops is None:
        return f"The head costs {own}; its frozen base was not measured, so its fraction is not known."
    total = mega(head.base_flops + head.flops_dense)
    said = f"the head is {percent(whole)} of the {total} MFLOPs of base and head ({own})"
    if whole <= NO_MATTER:
        return f"A head cannot move FLOPs: {said}, and its ticket saves {percent(saved)} of the whole."
    return f"Here the head does move FLOPs: {said}, and its ticket saves {percent(saved)} of the whole."


def _weights_sentence(head: Head) -> str:
    return (
        f"What it saves are weights and bytes: {head.kept:,.0f} of {head.total:,} weights are kept "
        f"({percent(head.kept / head.total)}), {kilo(head.packed_bytes)} kB as one bit mask and values against "
        f"{kilo(head.dense_bytes)} kB dense, biases left out."
    )


def _head(lottery: Lottery | None, base: Measured | None) -> Head | None:
    if lottery is None or lottery.ticket_round is None:
        return None
    tickets = lottery.branch("ticket", lottery.ticket_round)

    def mean(column: str) -> float:
        return sum(row[column] for row in tickets) / len(tickets)

    under = None if base is None else base.mean("flops_dense")
    words = lottery.ticket_words(lottery.ticket_round)
    return Head(tickets[0]["flops_dense"], mean("flops_effective"), mean("kept"), tickets[0]["total"], under, words)
