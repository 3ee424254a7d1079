"""Measured time of calls. Ways to do a thing take turns, so that a noisy machine disturbs all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Way = TypeVar("Way", bound=Hashable)

LEAST_BLOCK = 2e-4
"""Seconds of a block: long beside the clock's own cost, short beside a disturbance."""


def interleaved(
    ways: Mapping[Way, Callable[[], object]], seconds: float = 0.5, least_blocks: int = 15
) -> dict[Way, list[float]]:
    """Seconds per call of each way, block by block, in about `seconds` altogether.

    A block is as many calls of one way as take `LEAST_BLOCK` seconds, one call at least. Blocks of the ways
    alternate, `least_blocks` of each however long they take. One untimed round comes first.
    """
    calls = {way: _calls_per_block(call) for way, call in ways.items()}
    times: dict[Way, list[float]] = {way: [] for way in ways}
    until = time.perf_counter() + seconds
    while min(map(len, times.values())) < least_blocks or time.perf_counter() < until:
        for way, call in ways.items():
            began = time.perf_counter()
            for _ in range(calls[way]):
                call()
            times[way].append((time.perf_counter() - began) / calls[way])
    return times


def medians(times: Mapping[Way, list[float]]) -> dict[Way, float]:
    """The median time of each way, in seconds."""
    return {way: statistics.median(blocks) for way, blocks in times.items()}


def _calls_per_block(call: Callable[[], object]) -> int:
    call()  # the first call compiles, allocates and fills caches
    began = time.perf_counter()
    call()
    return max(1, round(LEAST_BLOCK / max(1e-7, time.perf_counter() - began)))
