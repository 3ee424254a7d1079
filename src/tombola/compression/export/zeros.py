"""Whether a file's weights are 0 where they were removed: counted in the file itself, against the masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tombola.errors import ModelError

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Zeros:
    """Of the prunable weights of a file: how many there are, how many were `removed`, and how many are `zeros`.

    Kept weights that int8 rounds to 0, or that were 0, are the difference between the last two. `unseen` weights are
    part of other tensors in the file, and count in none of the numbers.
    """

    weights: int
    removed: int
    zeros: int
    unseen: tuple[str, ...]


def found_in(stored: Arrays, parameters: Arrays) -> dict[str, tuple[str, bool]]:
    """What a file calls the parameters, by their own names, and whether it holds them transposed.

    An exporter keeps a name, or transposes a matrix and gives it another one: then it is known by its numbers. One that
    is neither is left out.
    """
    found = {name: (name, False) for name in parameters if name in stored}
    for name in parameters.keys() - found.keys():
        for other, numbers in stored.items():
            if numbers.ndim == 2 and np.array_equal(numbers.T, parameters[name]):
                found[name] = (other, True)
                break
    return found


def counted_zeros(
    stored: Arrays, keeps: Mapping[str, NDArray[np.bool_]], found: Mapping[str, tuple[str, bool]]
) -> Zeros:
    """Counts the zeros of a file's weights under boolean arrays of the kept ones, where `found_in` has found them.

    ModelError where a removed weight is not 0, which nothing that we write may be.
    """
    total = removed = zeros = 0
    for name, keep in keeps.items():
        if name not in found:
            continue
        other, transposed = found[name]
        numbers = stored[other].T if transposed else stored[other]
        if left := int((numbers[~keep] != 0).sum()):
            raise ModelError(f"self-check failed: {left:,} removed weights of {name} are not 0 in the file")
        total += keep.size
        removed += int((~keep).sum())
        zeros += int((numbers == 0).sum())
    return Zeros(total, removed, zeros, tuple(name for name in keeps if name not in found))
