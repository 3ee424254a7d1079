"""A layer's mask as bytes that zstandard packs well: a bit a weight, or the gaps between the weights of the rarer kind.

A gap is how many weights lie between two, in row-major order, one byte each: 255 stands for 255 of them and goes on in
the next byte. Chance has no memory, so that these bytes packed by their frequencies take what the entropy is.
"""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np
import zstandard
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

ON = 255
"""A byte that says: as many, and more."""
AT_ONCE = 1 << 20
"""Bytes that are decoded at once: positions take eight bytes each."""


class Code(StrEnum):
    BITS = "bits"
    KEPT = "gaps between kept"
    REMOVED = "gaps between removed"


def encoded(keep: Bools) -> tuple[Code, Bytes]:
    """A flat mask in the code that zstandard packs smallest."""
    found = {Code.BITS: np.packbits(keep)}
    # Gaps never win where more than a quarter is of that kind: a bit a weight is then smaller even unpacked.
    rarer, code = (keep, Code.KEPT) if 2 * int(keep.sum()) <= len(keep) else (~keep, Code.REMOVED)
    if 4 * int(rarer.sum()) <= len(keep):
        found[code] = _gaps(rarer)
    packer = zstandard.ZstdCompressor(level=3)
    best = min(found, key=lambda code: len(packer.compress(found[code].tobytes())))
    return best, found[best]


def decoded(code: Code, content: Bytes, total: int) -> Bools:
    """The flat mask of `total` weights; ValueError where `content` is none."""
    if code != Code.BITS:
        found = _marked(content, total)
        return found if code == Code.KEPT else ~found
    if len(content) != (total + 7) // 8:
        raise ValueError(f"has {len(content)} bytes of bits for {total} weights")
    bits = np.unpackbits(content)
    if bits[total:].any():
        raise ValueError("has bits beyond its last weight")
    return bits[:total].view(np.bool_)


def entropy(total: int, kept: int) -> float:
    """Bytes that no code of a mask beats on average, when all masks that keep as many are as likely (Shannon)."""
    density = kept / total if total else 0.0
    if not 0 < density < 1:
        return 0.0
    return -total * (density * math.log2(density) + (1 - density) * math.log2(1 - density)) / 8


def _gaps(chosen: Bools) -> Bytes:
    between = np.diff(np.flatnonzero(chosen), prepend=-1) - 1
    lengths = between // ON + 1
    found = np.full(lengths.sum(), ON, np.uint8)
    found[np.cumsum(lengths) - 1] = between % ON
    return found


def _marked(gaps: Bytes, total: int) -> Bools:
    """Which of `total` are at the ends of gaps."""
    found = np.zeros(total, np.bool_)
    last = -1
    for start in range(0, len(gaps), AT_ONCE):
        part = gaps[start : start + AT_ONCE]
        ends = part != ON
        places = last + np.cumsum(part.astype(np.int64) + ends)
        last = int(places[-1])
        if last >= total:
            raise ValueError(f"has gaps that lead beyond its {total} weights")
        found[places[ends]] = True
    if len(gaps) and gaps[-1] == ON:
        raise ValueError("has a gap without an end")
    return found
