"""Ways that take turns in blocks with warm caches, each block measured again where somebody else had the core.

Beside `latency`, whose blocks begin as the one before has left the caches: here the weights of other ways would be
what is timed. Timed cold, dense weights pay for being read again and sparse ones hardly, which would favour sparse
kernels up to threefold at batch 1. So the first call of a block is not timed, and blocks are long beside it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

BLOCK = 2e-3
"""Seconds of a block."""
UNDISTURBED = 0.9
"""A block's computing time over its time, below which it was disturbed."""
TRIES = 3

Call = Callable[[], object]
Way = TypeVar("Way")


@dataclass
class Taken:
    """Seconds per call of one way, how many blocks they are of, and how many were disturbed each time."""

    seconds: list[float] = field(default_factory=list)
    blocks: int = 0
    disturbed: int = 0


def warm_turns(ways: Mapping[Way, Call], seconds: float, least: int, *, each_call: bool = False) -> dict[Way, Taken]:
    """What ways take, block by block in turn; `least` blocks of each at least. Seconds are means of whole blocks, or
    with `each_call` those of single calls, a clock being read between two."""
    calls = {way: _calls_per_block(call) for way, call in ways.items()}
    taken = {way: Taken() for way in ways}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or min((one.blocks for one in taken.values()), default=least) < least:
        for way, call in ways.items():
            call()
            block, quiet = _block(call, calls[way], each_call)
            taken[way].seconds += block
            taken[way].blocks += 1
            taken[way].disturbed += not quiet
    return taken


def _block(call: Call, count: int, each_call: bool) -> tuple[list[float], bool]:
    """The seconds of `count` calls and whether nobody disturbed them; measured again, twice at most, where one did."""
    quiet = False
    for _ in range(TRIES):
        began, computed = time.perf_counter(), time.process_time()
        ends = [began]
        for _ in range(count):
            call()
            if each_call:
                ends.append(time.perf_counter())
        took, computed = time.perf_counter() - began, time.process_time() - computed
        quiet = computed > UNDISTURBED * took
        if quiet:
            break
    return ([b - a for a, b in itertools.pairwise(ends)] if each_call else [took / count]), quiet


def _calls_per_block(call: Call) -> int:
    """As many calls as take `BLOCK` seconds, one at least; the fastest of three tells how long one takes."""
    return max(1, round(BLOCK / min(_block(call, 1, False)[0][0] for _ in range(3))))
