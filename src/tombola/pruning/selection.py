"""Choosing exactly k: the selections that criteria and distributions share.

The k-th value is found by counting, 16 bits of the numbers at a time, in pieces that stay in cache. Next to a
full sort this takes a fifth of the time and next to no memory, and it is exact under ties.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

PIECE = 1 << 17
"""Numbers looked at together: few enough for the cache, enough to forget the cost of a call."""
DIGIT = 16
"""Bits of a number that one pass counts."""
FEW = 1 << 13
"""Up to so many numbers are ranked at once: a table of counts costs more than they do."""


@dataclass(frozen=True)
class Pool:
    """Numbers to choose from: 1-D `scores`, and of the same length which of them take part (None: all)."""

    scores: Tensor
    among: Tensor | None = None

    def pieces(self) -> Iterator[Tensor]:
        """The numbers that take part, in order, a piece at a time."""
        for start in range(0, self.scores.numel(), PIECE):
            piece = self.scores[start : start + PIECE]
            if self.among is None or bool((taking_part := self.among[start : start + PIECE]).all()):
                yield piece
            else:
                yield piece[taking_part]


def lowest_of(pools: Sequence[Pool], count: int) -> list[int]:
    """How many of each pool are among the `count` lowest of all, as if ranked by a stable sort of all in order."""
    if count <= 0:
        return [0] * len(pools)
    value = _kth_value(pools, count)
    # A tensor is compared in its own precision, to which the value may have no equal: all in the widest, then.
    real = _widest(pools)
    below = [sum(int((piece.to(real) < value).count_nonzero()) for piece in pool.pieces()) for pool in pools]
    left = count - sum(below)
    counts = []
    for pool, under in zip(pools, below, strict=True):
        equal = sum(int((piece.to(real) == value).count_nonzero()) for piece in pool.pieces()) if left else 0
        counts.append(under + min(equal, left))
        left -= min(equal, left)
    return counts


def lowest(scores: Tensor, count: int, among: Tensor | None = None) -> Tensor:
    """The `count` lowest of 1-D `scores` (of those `among`) as a boolean tensor, as if ranked by a stable sort.

    A bare threshold takes all ties or none; here ties at the threshold go by position, the first first, so
    exactly `count` are chosen and the choice is the same every time. Scores must not hold NaN.
    """
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    value = _kth_value([Pool(scores, among)], count)
    chosen = scores < value
    if among is not None:
        chosen &= among
    left = count - int(chosen.count_nonzero())
    for start in range(0, scores.numel(), PIECE):
        if not left:
            break
        ties = scores[start : start + PIECE] == value
        if among is not None:
            ties &= among[start : start + PIECE]
        first = ties.nonzero().flatten()[:left]
        chosen[start + first] = True
        left -= len(first)
    return chosen


def _kth_value(pools: Sequence[Pool], count: int) -> float:
    """The `count`-th lowest number of all pools, found digit by digit from the highest."""
    real = _widest(pools)
    if sum(pool.scores.numel() for pool in pools) <= FEW:
        few = torch.cat([piece.to(real).cpu() for pool in pools for piece in pool.pieces()])
        return float(few.kthvalue(count).values)
    bits = torch.finfo(real).bits
    prefix, rank = 0, count
    for shift in range(bits - DIGIT, -1, -DIGIT):
        tally = torch.zeros(1 << DIGIT, dtype=torch.int64)
        for pool in pools:
            for piece in pool.pieces():
                keys = _sortable(piece.to(real))
                if shift < bits - DIGIT:
                    keys = keys[keys >> (shift + DIGIT) == prefix]
                tally += torch.bincount((keys >> shift) & ((1 << DIGIT) - 1), minlength=1 << DIGIT).cpu()
        if shift == bits - DIGIT:  # the highest digit holds the sign: its upper half counts from below zero
            tally = tally.roll(1 << (DIGIT - 1))
        up_to = tally.cumsum(0)
        digit = int(torch.searchsorted(up_to, rank))
        rank -= int(up_to[digit] - tally[digit])
        prefix = digit - (1 << (DIGIT - 1)) if shift == bits - DIGIT else (prefix << DIGIT) + digit
    key = torch.tensor(prefix, dtype=torch.int64 if bits == 64 else torch.int32)
    return float(_flip_negative(key).view(real))


def _widest(pools: Sequence[Pool]) -> torch.dtype:
    return torch.float64 if any(pool.scores.dtype == torch.float64 for pool in pools) else torch.float32


def _sortable(numbers: Tensor) -> Tensor:
    """Integers in the order of the floating-point `numbers`; 0.0 and -0.0 are equal."""
    return _flip_negative((numbers + 0.0).view(torch.int32 if numbers.dtype == torch.float32 else torch.int64))


def _flip_negative(bits: Tensor) -> Tensor:
    """Negative floats grow in magnitude with their bits; flipping all but the sign puts them in order (and back)."""
    magnitude = torch.iinfo(bits.dtype).max
    return bits ^ ((bits >> (bits.element_size() * 8 - 1)) & magnitude)


def apportion(total: int, weights: Sequence[float | Fraction], lower: Sequence[int], upper: Sequence[int]) -> list[int]:
    """Whole numbers that add up to `total`, in proportion to `weights`, each within its bounds.

    Largest remainder (Hamilton's method); ties by position. Where a part falls outside its bounds it is
    fixed at the bound and the rest is shared again. Raises ValueError when the bounds cannot hold `total`.
    """
    if not sum(lower) <= total <= sum(upper):
        raise ValueError(f"{total} does not fit between {sum(lower)} and {sum(upper)}")
    # Fractions keep the parts exact: with floats a rounding error could push a part past its bound.
    exact = [Fraction(weight) for weight in weights]
    fixed: dict[int, int] = {}
    while True:
        free = [i for i in range(len(weights)) if i not in fixed]
        rest = total - sum(fixed.values())
        scale = sum((exact[i] for i in free), Fraction(0))
        quotas = {i: rest * exact[i] / scale if scale else Fraction(rest, len(free)) for i in free}
        below = {i: lower[i] for i in free if quotas[i] < lower[i]}
        above = {i: upper[i] for i in free if quotas[i] > upper[i]}
        if not below and not above:
            break
        # Fixing the side with the larger overshoot first keeps the other side feasible.
        overshoot = sum(lower[i] - quotas[i] for i in below) - sum(quotas[i] - upper[i] for i in above)
        fixed |= below if overshoot >= 0 else above
    parts = fixed | {i: int(quotas[i]) for i in free}
    by_remainder = sorted(free, key=lambda i: (int(quotas[i]) - quotas[i], i))
    for i in by_remainder[: total - sum(parts.values())]:
        parts[i] += 1
    return [parts[i] for i in range(len(weights))]
