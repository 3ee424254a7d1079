"""Measured time of calls. Ways to do a thing take turns, so that a noisy machine disturbs all alike.

Wall time is what a user waits, and says nothing where other programs had the processor meanwhile. So the time that this
thread was computing is taken beside it: a block whose wall time is clearly longer was disturbed and is measured again.
Work on other threads counts as a disturbance; what is measured here runs on one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

Way = TypeVar("Way", bound=Hashable)

LEAST_BLOCK = 2e-4
"""Seconds of a block: long beside the clock's own cost, short beside a disturbance."""
DISTURBED = 1.1
"""How many times the thread's own time a block's wall time may be: clocks and interrupts take some, too."""
PATIENCE = 2
"""How many times as long as asked disturbed blocks are measured again."""
BUSY = "machine busy: not measured reliably, other programs had the processor meanwhile"


@dataclass(frozen=True)
class Clock:
    """Two clocks in seconds: of the wall, and of what this thread computes."""

    wall: Callable[[], float] = time.perf_counter
    thread: Callable[[], float] = time.thread_time


FINE = 1e-6
"""Seconds: a coarser thread clock cannot tell a disturbance in a block, so that blocks are taken as they come."""
CLOCK = Clock() if time.get_clock_info("thread_time").resolution <= FINE else Clock(thread=time.perf_counter)


@dataclass(frozen=True)
class Blocks:
    """Seconds per call of one way, block by block: `all`, and those that were `quiet`, which nobody disturbed."""

    all: list[float] = field(default_factory=list)
    quiet: list[float] = field(default_factory=list)


def interleaved(
    ways: Mapping[Way, Callable[[], object]], seconds: float = 0.5, least_blocks: int = 15, patience: int = PATIENCE
) -> dict[Way, Blocks]:
    """Seconds per call of each way, block by block, in about `seconds` altogether.

    A block is as many calls of one way as take `LEAST_BLOCK` seconds, one call at least. Blocks of the ways
    alternate, `least_blocks` quiet ones of each however long they take; after `patience` times as much again it ends
    with fewer of them. One untimed round comes first.
    """
    clock = CLOCK
    calls = {way: _calls_per_block(call, clock) for way, call in ways.items()}
    blocks: dict[Way, Blocks] = {way: Blocks() for way in ways}
    began, turns = clock.wall(), 0
    while True:
        spent = clock.wall() - began
        if spent >= seconds and all(len(found.quiet) >= least_blocks for found in blocks.values()):
            return blocks
        if spent >= (1 + patience) * seconds and turns >= (1 + patience) * least_blocks:
            return blocks
        for way, call in ways.items():
            _take_block(call, calls[way], clock, blocks[way])
        turns += 1


def _take_block(call: Callable[[], object], calls: int, clock: Clock, blocks: Blocks) -> None:
    wall, own = clock.wall(), clock.thread()
    for _ in range(calls):
        call()
    own, wall = clock.thread() - own, clock.wall() - wall
    blocks.all.append(wall / calls)
    if wall <= DISTURBED * own:
        blocks.quiet.append(wall / calls)


def _calls_per_block(call: Callable[[], object], clock: Clock) -> int:
    call()  # the first call compiles, allocates and fills caches
    began = clock.thread()  # of the thread: a disturbance would make the blocks too short
    call()
    return max(1, round(LEAST_BLOCK / max(1e-7, clock.thread() - began)))
