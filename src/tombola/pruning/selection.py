"""Choosing exactly k: the selections that criteria and budgets share."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor


def lowest(scores: Tensor, count: int) -> Tensor:
    """The `count` lowest of 1-D `scores` as a boolean tensor, as if ranked by a stable sort.

    A bare threshold takes all ties or none; here ties at the threshold go by position, the first first, so
    exactly `count` are chosen and the choice is the same every time. Scores must not hold NaN.
    """
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = torch.kthvalue(scores, count).values
    chosen = scores < threshold
    ties = (scores == threshold).nonzero().flatten()
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen


def apportion(total: int, weights: Sequence[float], lower: Sequence[int], upper: Sequence[int]) -> list[int]:
    """Whole numbers that add up to `total`, in proportion to `weights`, each within its bounds.

    Largest remainder (Hamilton's method); ties by position. Where a share falls outside its bounds it is
    fixed at the bound and the rest is shared again. Raises ValueError when the bounds cannot hold `total`.
    """
    if not sum(lower) <= total <= sum(upper):
        raise ValueError(f"{total} does not fit between {sum(lower)} and {sum(upper)}")
    # Fractions keep the shares exact: with floats a rounding error could push a share past its bound.
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
    shares = fixed | {i: int(quotas[i]) for i in free}
    by_remainder = sorted(free, key=lambda i: (int(quotas[i]) - quotas[i], i))
    for i in by_remainder[: total - sum(shares.values())]:
        shares[i] += 1
    return [shares[i] for i in range(len(weights))]
