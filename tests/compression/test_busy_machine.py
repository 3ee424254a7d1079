"""Times on a busy machine: measured again, or said to be none. All clocks here are the tests' own."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import nn

from tombola.compression import latency
from tombola.compression.latency import BUSY, LEAST_BLOCK, Clock, interleaved
from tombola.compression.measured import measure_latency, why_untrusted
from tombola.pruning import Masks
from tombola.studies.base.speed import remarks, speeds_of, times


class World:
    """Time passes only by what is called; `disturbed(n)` says for how long others have the processor in call n."""

    def __init__(self, disturbed: Callable[[int], float] = lambda call: 0.0) -> None:
        self.wall = self.own = 0.0
        self.calls = 0
        self.disturbed = disturbed

    def way(self, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.calls += 1
            self.own += seconds
            self.wall += seconds + self.disturbed(self.calls)

        return call

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.own)


def measured(world: World, monkeypatch: pytest.MonkeyPatch, dense: float = 9e-3) -> dict[str, latency.Blocks]:
    monkeypatch.setattr(latency, "CLOCK", world.clock)
    return interleaved({"dense": world.way(dense), "sparse": world.way(1e-3)}, 0.3, 3)


def test_a_quiet_machine_takes_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    found = measured(world, monkeypatch)
    assert found["dense"].quiet == pytest.approx([9e-3] * len(found["dense"].all))
    assert world.wall < 0.4
    assert why_untrusted(found.values()) is None


@pytest.mark.parametrize("tenths", [2, 3, 5])
def test_disturbed_blocks_are_measured_again_and_do_not_count(tenths: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In so many tenths of the calls, here and there, another program takes the processor for a while."""
    world = World(lambda call: 0.08 if call * 7919 % 101 % 10 < tenths else 0.0)
    found = measured(world, monkeypatch)
    assert why_untrusted(found.values()) is None
    assert any(len(blocks.quiet) < len(blocks.all) for blocks in found.values())
    assert found["dense"].quiet == pytest.approx([9e-3] * len(found["dense"].quiet))
    assert found["sparse"].quiet == pytest.approx([1e-3] * len(found["sparse"].quiet))


@pytest.mark.parametrize("dense", [9e-3, 2.0])
def test_a_machine_that_is_always_busy_is_given_up(dense: float, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(lambda call: 0.5)
    found = measured(world, monkeypatch, dense)
    assert why_untrusted(found.values()) == BUSY
    assert len(found["dense"].all) == 9  # three times the least number


def test_one_way_that_is_always_disturbed_spoils_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(lambda call: 0.5 if call % 2 else 0.0)  # every call of the first way but for its warming up
    found = measured(world, monkeypatch)
    assert not all(blocks.quiet for blocks in found.values())
    assert why_untrusted(found.values()) == BUSY


def test_a_disturbed_beginning_makes_no_short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a fast way hold many calls, or the clock would be what is measured."""
    world = World(lambda call: 0.05 if call <= 2 else 0.0)
    monkeypatch.setattr(latency, "CLOCK", world.clock)
    before = world.calls
    blocks = interleaved({"fast": world.way(1e-6)}, 1e-3, 3)["fast"]
    assert (world.calls - before) / len(blocks.all) > 0.9 * LEAST_BLOCK / 1e-6


def test_rows_and_words_say_so_and_give_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "CLOCK", Clock(thread=lambda: time.perf_counter() / 2))
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    (found,) = measure_latency(network, Masks.full(network), torch.rand(4, 1, 8, 8), (1,))
    assert (found.dense, found.sparse, found.reason, found.clock) == (None, None, None, BUSY)
    rows = found.rows()
    assert [(row["seconds"], row["reason"], row["clock"]) for row in rows] == [(None, None, BUSY)] * 2
    (speed,) = speeds_of(rows, (1,))
    assert (speed.ratio, times(speed.ratio), speed.entry["reason"]) == (None, "–", BUSY)
    assert remarks([speed]) == [f"Not measured: {BUSY}."]
    assert speed.entry["speed_up"] is None
