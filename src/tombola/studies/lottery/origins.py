"""What came before the first training: a frozen base, a network that the search starts from."""

from __future__ import annotations

from tombola.studies.lottery.over_replicates import summaries_of_mode
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.start import start_line
from tombola.training.frozen import SEEN

NO_MATTER = 0.05
"""A head whose FLOPs are at most this fraction of base and head cannot move them, however few weights it keeps."""


def origin_lines(result: Result) -> list[str]:
    """What came before the first training: a frozen base, a network that the search starts from; often nothing."""
    return [line for line in (base_line(result), start_line(result.config)) if line is not None]


def base_line(result: Result) -> str | None:
    """Which frozen base the examples passed, and whether pruning its head can move FLOPs; None without a base."""
    base = result.data.get("base")
    if base is None:
        return None
    said = (
        f"Frozen base: {base['source']}, up to {base['layer']}; it stays as it is and all replicates share it. "
        "Weights, FLOPs and times are the head's alone."
    )
    if result.data.get("seen_by_base"):
        said += " " + SEEN
    flops = base.get("flops")
    return said if flops is None else f"{said} {_head_line(result, flops)}"


def _head_line(result: Result, flops: int) -> str:
    """The head's fraction of the FLOPs of base and head, dense and at the run's ticket."""
    summaries = summaries_of_mode(result.summaries, result.config.rewind[0])
    ticket = next(s for s in summaries if s.branch == "ticket" and s.round == result.ticket_round)
    dense = summaries[0].flops_dense
    assert dense is not None, "a head has classes, and FLOPs"
    assert ticket.flops_effective is not None
    whole, left = flops + dense, flops + ticket.flops_effective.mean
    moves = "Here the head moves FLOPs" if dense > NO_MATTER * whole else "A head cannot move FLOPs"
    return (
        f"{moves}: dense it needs {dense / 1e6:.3g} of the {whole / 1e6:,.4g} MFLOPs of base and head "
        f"({dense / whole:.2%}), with {ticket.density:.1%} of its weights {ticket.flops_effective.mean / 1e6:.3g} of "
        f"{left / 1e6:,.4g}; what it saves are weights and bytes."
    )
