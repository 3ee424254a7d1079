"""Question 3 for the network that a frozen base and its head make together, dense or with the head's ticket.

Pure functions of rows. What the head's ticket saves in weights and bytes is `heads`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tombola.compression.measured import BATCH_SIZES
from tombola.reports.significance import Judged
from tombola.studies.base.numbers import begun, mega
from tombola.studies.hybrid.comparison import Comparison, accuracy_words, comparison_numbers, pace
from tombola.studies.hybrid.cuts import HEAD, HEAD_TICKET
from tombola.studies.hybrid.summaries import Measured
from tombola.studies.hybrid.timings import clock
from tombola.studies.hybrid.units import NETWORK


def deployed_sentences(networks: Mapping[str, Measured], exit: Comparison, accuracy: Mapping[str, Judged]) -> list[str]:
    """Base and head, whole, against the exit and forest of `exit`; none where no head was run.

    `accuracy` has the difference in test accuracy of every network, as one family.
    """
    found = deployed(networks, exit)
    said = [_sentence(one, accuracy.get(name)) for name, one in found.items()]
    if len(found) == 2:
        said.append(_ticket_sentence(found[HEAD], found[HEAD_TICKET]))
    return said


def deployed_numbers(networks: Mapping[str, Measured], exit: Comparison) -> dict[str, Any]:
    return {
        name: {
            **comparison_numbers(one),
            "accuracy_difference": one.accuracy and asdict(one.accuracy),
            "seconds": one.seconds,
        }
        for name, one in deployed(networks, exit).items()
    }


def deployed(networks: Mapping[str, Measured], exit: Comparison) -> dict[str, Comparison]:
    """Base and head, dense and as the head's ticket, each against the exit and forest of `exit`."""
    names = [name for name in (HEAD, HEAD_TICKET) if name in networks]
    return {name: Comparison(networks[name], exit.exit, exit.rows) for name in names}


def _sentence(found: Comparison, accuracy: Judged | None) -> str:
    """`Base + dense head needs 62.9 MFLOPs and takes 700 µs at batch 1 (torch eager)...: it is slower at batch 1...`"""
    flops = found.network.mean("flops_effective")
    spent = [] if flops is None else [f"needs {mega(flops)} MFLOPs"]
    for batch in BATCH_SIZES:
        ours, _ = found.calls(batch)
        spent.append(f"has no time at batch {batch}" if ours is None else _time(ours, batch))
    paces = ", ".join(f"{pace(found.calls(batch))} at batch {batch}" for batch in BATCH_SIZES)
    name = begun(NETWORK[found.network.network])
    return f"{name} {_series(spent)}: against the exit and its forest it {paces} and {accuracy_words(accuracy)}."


def _time(call: Mapping[str, Any], batch: int) -> str:
    return f"takes {clock(dict(call))} µs at batch {batch} ({call['engine']})"


def _series(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def _ticket_sentence(dense: Comparison, ticket: Comparison) -> str:
    """What the head's ticket does for the clock."""
    paces = [f"{pace((ticket.calls(batch)[0], dense.calls(batch)[0]))} at batch {batch}" for batch in BATCH_SIZES]
    return f"With the head's ticket instead of the dense head the whole {' and '.join(paces)}."
