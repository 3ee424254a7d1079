"""Schedules: how a target sparsity is spread over rounds.

A schedule is a function `(target, rounds, start=0) -> [sparsity after round 1, ..., after the last]`. The
sequence never falls, and its last entry is the target itself, not a rounded neighbour of it.
"""

from __future__ import annotations

from collections.abc import Callable

from tombola.errors import PruningError
from tombola.pruning.scalars import plain
from tombola.registry import Registry

Schedule = Callable[..., list[float]]
schedules: Registry[Schedule] = Registry("schedule")


@schedules.register("one-shot")
def one_shot(target: float, rounds: int = 1, start: float = 0.0) -> list[float]:
    """Everything in the first round; with more than one round the others prune nothing."""
    target, rounds, start = _checked(target, rounds, start)
    return [target] * rounds


@schedules.register("geometric")
def geometric(target: float, rounds: int, start: float = 0.0) -> list[float]:
    """The same fraction of the survivors every round: density after round i is (1-start)·r^i."""
    target, rounds, start = _checked(target, rounds, start)
    ratio = ((1 - target) / (1 - start)) ** (1 / rounds)
    return [1 - (1 - start) * ratio**i for i in range(1, rounds)] + [target]


@schedules.register("linear")
def linear(target: float, rounds: int, start: float = 0.0) -> list[float]:
    """The same number of weights every round."""
    target, rounds, start = _checked(target, rounds, start)
    return [start + (target - start) * i / rounds for i in range(1, rounds)] + [target]


@schedules.register("cubic")
def cubic(target: float, rounds: int, start: float = 0.0) -> list[float]:
    """s_i = s_f + (s_0 - s_f)(1 - i/n)^3, equation 1 of Zhu & Gupta 2017 (arXiv 1710.01878)."""
    target, rounds, start = _checked(target, rounds, start)
    return [target + (start - target) * (1 - i / rounds) ** 3 for i in range(1, rounds)] + [target]


def _checked(target: float, rounds: int, start: float) -> tuple[float, int, float]:
    target, rounds, start = plain(target), plain(rounds), plain(start)
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise PruningError(f"a schedule needs at least one round, not {rounds!r}")
    if not 0 <= start <= target < 1:
        raise PruningError(f"a schedule needs 0 <= start <= target < 1, not start={start!r}, target={target!r}")
    return target, rounds, start
