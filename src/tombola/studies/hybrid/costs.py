"""Question 3: what the ticket costs against the early exit and its forest. A pure function of rows.

FLOPs of the exit are those of the network up to it; the forest's comparisons are no FLOPs and stand apart. Measured
time is of whole calls, each by its fastest engine, both engines having been measured for both. The network of base and
head is compared by `deployed`; what a pruned head can save is answered by `heads`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tombola.compression.measured import BATCH_SIZES
from tombola.reports.significance import Judged
from tombola.runs.rows import Row
from tombola.studies.base.numbers import listed, mega, mega_estimate, percent
from tombola.studies.base.speed import times
from tombola.studies.hybrid.comparison import Comparison, accuracy_words, comparison_numbers, families, pace
from tombola.studies.hybrid.deployed import deployed, deployed_numbers, deployed_sentences
from tombola.studies.hybrid.heads import head_numbers, head_sentences
from tombola.studies.hybrid.questions import COST, Answer, Lottery
from tombola.studies.hybrid.soundness import warning
from tombola.studies.hybrid.summaries import Measured, best_features, exits_of, forests_of, networks_of
from tombola.studies.hybrid.timings import apart, clock

OWNER = {"base": "the frozen base", "dense": "the dense network"}


def cost(rows: Sequence[Row], lotteries: Mapping[str, Lottery], gate_exit: str) -> Answer:
    """The answer for the exit `gate_exit`, and what pruning a head can save."""
    found = _comparison(rows, gate_exit)
    networks = networks_of(rows)
    head = {"head": head_numbers(lotteries.get("head"), networks.get("base"))}
    if isinstance(found, str):
        said, numbers = [f"Not known: {found}."], {"reason": found}
    else:
        accuracy = families({"ticket": found, **deployed(networks, found)})
        said = [*_sentences(found, accuracy.get("ticket"), networks), *deployed_sentences(networks, found, accuracy)]
        said += _correction(accuracy)
        numbers = _numbers(found) | {"base_and_head": deployed_numbers(networks, found)}
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


def _sentences(found: Comparison, accuracy: Judged | None, networks: Mapping[str, Measured]) -> list[str]:
    measured = [_time_sentence(found, batch) for batch in BATCH_SIZES]
    return [
        _lead(found, accuracy, networks),
        *_flops_sentences(found),
        *measured,
        *_torch_sentences(found),
        *_clash(found),
    ]


def _correction(accuracy: Mapping[str, Judged]) -> list[str]:
    """How many accuracies were compared."""
    if len(accuracy) < 2:
        return []
    return [f"Differences in accuracy are judged at 5 %, corrected for {len(accuracy)} of them (Holm)."]


def _lead(found: Comparison, accuracy: Judged | None, networks: Mapping[str, Measured]) -> str:
    """FLOPs, time and accuracy in one sentence."""
    parts = [f"needs {_order(found)} FLOPs"]
    parts += [f"{_pace(found, batch)} at batch {batch}" for batch in BATCH_SIZES]
    place = (
        f"the exit {found.exit.exit} of {OWNER[found.exit.network]} with {found.exit.features} features, best on "
        "validation, and a forest"
    )
    return f"{warning(networks)}Against {place}, the ticket {', '.join(parts)} and {accuracy_words(accuracy)}."


def _order(found: Comparison) -> str:
    ours, theirs = found.flops
    if ours is None or theirs is None:
        return "an unknown number of"
    return "more" if ours.mean > theirs.mean else "fewer" if ours.mean < theirs.mean else "as many"


def _pace(found: Comparison, batch: int) -> str:
    return pace(found.calls(batch))


def _flops_sentences(found: Comparison) -> list[str]:
    ours, theirs = found.flops
    whole = found.network.mean("flops_dense")
    if ours is None or theirs is None or whole is None:
        return ["FLOPs were not counted for both."]
    density, forest = found.network.mean("density"), found.exit
    kept = "" if density is None else f" with {percent(density)} of its weights"
    ratio = f", {times(ours.mean / theirs.mean)} the exit's" if theirs.mean else ""
    return [
        f"The ticket{kept} needs {mega_estimate(ours)} of its dense network's {mega(whole)}{ratio}; the exit needs "
        f"{mega_estimate(theirs)} and, counted apart, {forest.mean('comparisons'):,.0f} comparisons "
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


def _torch_sentences(found: Comparison) -> list[str]:
    """Where torch alone would put the two in another order than their fastest engines do."""
    said = []
    for batch in BATCH_SIZES:
        ours, theirs = calls = found.calls_by_torch(batch)
        if ours is None or theirs is None or pace(calls) == _pace(found, batch):
            continue
        both = f"{clock(ours)} against {clock(theirs)} µs"
        said.append(f"With torch alone the ticket {pace(calls)} at batch {batch}: {both}.")
    return said


def _clash(found: Comparison) -> list[str]:
    """Where FLOPs and the clock say the opposite."""
    order = _order(found)
    opposite = {"more": "is faster", "fewer": "is slower"}.get(order)
    batches = [str(batch) for batch in BATCH_SIZES if _pace(found, batch) == opposite]
    if not batches:
        return []
    return [f"FLOPs do not tell the time here: with {order} of them the ticket {opposite} at batch {listed(batches)}."]


def _numbers(found: Comparison) -> dict[str, Any]:
    _, theirs = found.flops
    return {
        "exit": {
            "network": found.exit.network,
            "exit": found.exit.exit,
            "features": found.exit.features,
            "flops_effective": theirs and asdict(theirs),
            "flops_dense": found.exit.mean("flops_dense"),
            "comparisons": found.exit.mean("comparisons"),
        },
        "ticket": comparison_numbers(found),
        "accuracy_difference": found.accuracy and asdict(found.accuracy),
        "seconds": found.seconds,
    }
