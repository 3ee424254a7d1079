"""Question 3: what the ticket costs against the early exit and its forest. A pure function of rows.

FLOPs of the exit are those of the network up to it; the forest's comparisons are no FLOPs and stand apart. Measured
time is of whole calls, each by its fastest engine. What a pruned head can save is answered by `heads`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tombola.compression.measured import BATCH_SIZES
from tombola.reports.intervals import Estimate
from tombola.runs.rows import Row
from tombola.studies.hybrid.heads import head_numbers, head_sentences
from tombola.studies.hybrid.questions import COST, Answer, Lottery
from tombola.studies.hybrid.summaries import (
    Measured,
    accuracies,
    best_features,
    exits_of,
    forests_of,
    networks_of,
    paired,
    resolution_of,
    side,
)
from tombola.studies.hybrid.timings import apart, clock, fastest, why_missing
from tombola.studies.hybrid.wording import listed, mega, mega_estimate, share, signed
from tombola.studies.speed import times

OWNER = {"base": "the frozen base", "dense": "the dense network"}


@dataclass(frozen=True)
class Comparison:
    """The ticket, whole, against the forest at an exit of the frozen base, or of dense where there is no base."""

    ticket: Measured
    exit: Measured
    rows: Sequence[Row]

    @property
    def flops(self) -> tuple[Estimate | None, Estimate | None]:
        """Effective FLOPs of one example, the ticket's and the exit's."""
        return self.ticket.over("flops_effective"), self.exit.over("flops_effective")

    @property
    def accuracy(self) -> Estimate | None:
        """Ticket minus exit in points of test accuracy."""
        return paired(accuracies(self.ticket), accuracies(self.exit), resolution_of(self.rows))

    def calls(self, batch: int) -> tuple[Row | None, Row | None]:
        """The fastest whole call of the ticket and of the exit with its forest."""
        found = self.exit
        return (
            fastest(self.rows, "ticket", None, None, batch),
            fastest(self.rows, found.network, found.exit, found.features, batch),
        )

    def why_not(self, batch: int) -> str:
        """Why a call of this batch size has no time, the ticket's or else the exit's."""
        found = self.exit
        if self.calls(batch)[0] is None:
            return f"ticket: {why_missing(self.rows, 'ticket', None, None, batch)}"
        return f"exit: {why_missing(self.rows, found.network, found.exit, found.features, batch)}"


def cost(rows: Sequence[Row], lotteries: Mapping[str, Lottery], gate_exit: str) -> Answer:
    """The answer for the exit `gate_exit`, and what pruning a head can save."""
    found = _comparison(rows, gate_exit)
    networks = networks_of(rows)
    head = {"head": head_numbers(lotteries.get("head"), networks.get("base"))}
    if isinstance(found, str):
        said, numbers = [f"Not known: {found}."], {"reason": found}
    else:
        said, numbers = _sentences(found), _numbers(found)
    return Answer(COST, (*said, *head_sentences(lotteries.get("head"), networks.get("base"))), numbers | head)


def _comparison(rows: Sequence[Row], gate_exit: str) -> Comparison | str:
    """What is compared, or why nothing can be."""
    forests = best_features(forests_of(rows))
    ticket = networks_of(rows).get("ticket")
    if ticket is None:
        return "no ticket was measured"
    network = "base" if any(forest.network == "base" for forest in forests) else "dense"
    exit = next((f for f in forests if (f.network, f.exit) == (network, gate_exit)), None)
    if exit is None:
        there = exits_of(f for f in forests if f.network == network)
        return f"no forest was grown at {gate_exit} of {OWNER[network]}" + (
            f"; there are {listed(there)}" if there else ""
        )
    return Comparison(ticket, exit, rows)


def _sentences(found: Comparison) -> list[str]:
    return [_lead(found), *_flops_sentences(found), *[_time_sentence(found, b) for b in BATCH_SIZES], *_clash(found)]


def _lead(found: Comparison) -> str:
    """FLOPs, time and accuracy in one sentence."""
    parts = [f"needs {_order(found)} FLOPs"]
    parts += [f"{_pace(found, batch)} at batch {batch}" for batch in BATCH_SIZES]
    accuracy = {
        "above": "is more accurate on test",
        "below": "is less accurate on test",
        "open": "is not told apart from it in test accuracy",
    }[side(found.accuracy)]
    gap = "" if found.accuracy is None else f" ({signed(found.accuracy)})"
    place = (
        f"the exit {found.exit.exit} of {OWNER[found.exit.network]} with {found.exit.features} features and a forest"
    )
    return f"Against {place}, the ticket {', '.join(parts)} and {accuracy}{gap}."


def _order(found: Comparison) -> str:
    ours, theirs = found.flops
    if ours is None or theirs is None:
        return "an unknown number of"
    return "more" if ours.mean > theirs.mean else "fewer" if ours.mean < theirs.mean else "as many"


def _pace(found: Comparison, batch: int) -> str:
    ours, theirs = found.calls(batch)
    if ours is None or theirs is None:
        return "is of unknown speed"
    if not apart(ours, theirs):
        return "is about as fast"
    return "is faster" if ours["seconds"][1] < theirs["seconds"][1] else "is slower"


def _flops_sentences(found: Comparison) -> list[str]:
    ours, theirs = found.flops
    whole = found.ticket.mean("flops_dense")
    if ours is None or theirs is None or whole is None:
        return ["FLOPs were not counted for both."]
    density, forest = found.ticket.mean("density"), found.exit
    kept = "" if density is None else f" with {share(density)} of its weights"
    ratio = f", {times(ours.mean / theirs.mean)} the exit's" if theirs.mean else ""
    return [
        f"The ticket{kept} needs {mega_estimate(ours)} of the {mega(whole)} MFLOPs of its dense network{ratio}; the "
        f"exit needs {mega_estimate(theirs)} MFLOPs and, counted apart, {forest.mean('comparisons'):,.0f} comparisons "
        f"in {forest.rows[0]['trees']} trees."
    ]


def _time_sentence(found: Comparison, batch: int) -> str:
    """`Measured at batch 1: ticket 55 µs (sparse kernels), exit and forest 130 µs (torch eager).`"""
    ours, theirs = found.calls(batch)
    if ours is None or theirs is None:
        return f"At batch {batch} there is no time for both ({found.why_not(batch)})."
    both = f"ticket {clock(ours)} µs ({ours['engine']}), exit and forest {clock(theirs)} µs ({theirs['engine']})"
    overlap = "" if apart(ours, theirs) else "; their quartiles overlap"
    return f"Measured at batch {batch}: {both}{overlap}."


def _clash(found: Comparison) -> list[str]:
    """Where FLOPs and the clock say the opposite."""
    order = _order(found)
    opposite = {"more": "is faster", "fewer": "is slower"}.get(order)
    batches = [str(batch) for batch in BATCH_SIZES if _pace(found, batch) == opposite]
    if not batches:
        return []
    return [f"FLOPs do not tell the time here: with {order} of them the ticket {opposite} at batch {listed(batches)}."]


def _numbers(found: Comparison) -> dict[str, Any]:
    ours, theirs = found.flops
    return {
        "exit": {
            "network": found.exit.network,
            "exit": found.exit.exit,
            "features": found.exit.features,
            "flops_effective": theirs and asdict(theirs),
            "flops_dense": found.exit.mean("flops_dense"),
            "comparisons": found.exit.mean("comparisons"),
        },
        "ticket": {
            "density": found.ticket.mean("density"),
            "flops_effective": ours and asdict(ours),
            "flops_dense": found.ticket.mean("flops_dense"),
        },
        "accuracy_difference": found.accuracy and asdict(found.accuracy),
        "seconds": [_timed_numbers(found, batch) for batch in BATCH_SIZES],
    }


def _timed_numbers(found: Comparison, batch: int) -> dict[str, Any]:
    ours, theirs = found.calls(batch)
    return {
        "batch": batch,
        "ticket": ours and {"engine": ours["engine"], "quartiles": ours["seconds"]},
        "exit": theirs and {"engine": theirs["engine"], "quartiles": theirs["seconds"]},
        "reason": None if ours and theirs else found.why_not(batch),
    }
