"""The kept values of a layer as rows of bytes: their first bytes, their second ones, and so on.

Exponents repeat and mantissas do not, so that rows of bytes pack better than values. An int8 value stands for as many
steps of its output channel (the weight's first axis), and a step is a power of two: a value times its step is exact.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor

from tombola.errors import ModelError


class Values(StrEnum):
    """How values that a network has learned are stored."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


LARGEST = 127
FINENESS = 0.049
"""The longest step, in root mean squares of a channel's values: rounding to it is an error of 1.4 % of these, rms."""
STEPS = (-126, 121)
"""The exponents that a step may have: any value times its step is a number in float32."""
AT_ONCE = 1 << 20
"""Weights whose values are written at once."""
_DTYPES = {Values.FLOAT32: torch.float32, Values.FLOAT16: torch.float16, Values.INT8: torch.int8}


def encoded(name: str, weight: Tensor, keep: Tensor, values: Values) -> tuple[list[Tensor], Tensor | None]:
    """The rows of bytes of a float32 weight's kept values, and the exponent of each channel's step where there is one.

    ModelError where a value is too large for the type, or is no number and int8.
    """
    if values != Values.INT8:
        kept = weight[keep].to(_DTYPES[values])
        if not torch.equal(kept.isfinite(), weight[keep].isfinite()):
            raise ModelError(f"{name}: holds values that are too large for {values}; store float32")
        return _rows(kept), None
    exponents = _exponents(name, weight * keep, keep)
    steps = torch.ldexp(torch.ones(len(exponents)), exponents).reshape(-1, *[1] * (weight.dim() - 1))
    return _rows((weight / steps).round().clamp(-LARGEST, LARGEST)[keep].to(torch.int8)), exponents.to(torch.int8)


def check(rows: list[Tensor], keep: Tensor, values: Values, exponents: Tensor | None) -> None:
    """ValueError where rows and exponents do not fit the mask, or are none that `encoded` gives."""
    width, kept = _DTYPES[values].itemsize, int(torch.count_nonzero(keep))
    if len(rows) != width or any(row.dtype != torch.uint8 or row.shape != (kept,) for row in rows):
        raise ValueError(f"has other rows of bytes than {width} of {kept}")
    if (values == Values.INT8) != (exponents is not None):
        raise ValueError("has steps without int8 values, or the other way round")
    if exponents is None:
        return
    low, high = STEPS
    if exponents.dtype != torch.int8 or exponents.shape != keep.shape[:1]:
        raise ValueError("has no step for each channel")
    if len(exponents) and not low <= int(exponents.min()) <= int(exponents.max()) <= high:
        raise ValueError("has steps beyond float32")


def write(rows: list[Tensor], keep: Tensor, values: Values, exponents: Tensor | None, into: Tensor) -> None:
    """Makes `into`, a contiguous float32 tensor, the weight of rows that `check` has passed; removed ones become 0.

    Part by part: beside the weight and its mask no memory that grows with them is taken.
    """
    flat, begun = into.view(-1), 0
    for part, chosen in zip(flat.split(AT_ONCE), keep.reshape(-1).split(AT_ONCE), strict=True):
        end = begun + int(chosen.sum())
        kept = torch.stack([row[begun:end] for row in rows], 1).view(_DTYPES[values]).reshape(-1).float()
        part.zero_().masked_scatter_(chosen, kept)
        begun = end
    if exponents is not None:
        steps = torch.ldexp(torch.ones(len(exponents)), exponents.int())
        into.mul_(steps.reshape(-1, *[1] * (into.dim() - 1)))


def rest_as(tensor: Tensor, values: Values) -> Tensor:
    """A tensor that is never pruned: in half precision beside values that are, where its range allows it."""
    if values == Values.FLOAT32 or tensor.dtype != torch.float32:
        return tensor
    half = tensor.half()
    return half if torch.equal(half.isfinite(), tensor.isfinite()) else tensor


def _exponents(name: str, kept: Tensor, keep: Tensor) -> Tensor:
    """For each channel, of the longest step that is fine enough, or the shortest that reaches its largest value."""
    if not kept.isfinite().all():
        raise ModelError(f"{name}: holds values that are no numbers, which int8 does not have; store float32")
    if not kept.numel():
        return torch.zeros(len(kept), dtype=torch.int)
    flat, count = kept.flatten(1).double(), keep.flatten(1).sum(1).clamp(min=1)
    root_mean_square = (flat.square().sum(1) / count).sqrt()
    smallest = torch.finfo(torch.float32).smallest_normal
    fine = (FINENESS * root_mean_square).clamp(min=smallest).log2().floor()
    reaching = (flat.abs().amax(1) / LARGEST).clamp(min=smallest).log2().ceil()
    return torch.maximum(fine, reaching).clamp(*STEPS).int()


def _rows(values: Tensor) -> list[Tensor]:
    return [row.contiguous() for row in values.reshape(-1, 1).view(torch.uint8).unbind(1)]
