"""How tensors lie in our files: booleans as bits, and tensors that are mostly 0 as their other values.

Both are exact: what is unpacked is equal to the bit, signs of zeros included. A bit of `numpy.packbits` stands for each
entry, in row-major order, eight to a byte, the first in the highest place. A tensor in the form `nonzero` lies as a row
of its values that are not +0 under its own name, and the bits that say where they go under its name with `:kept`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tombola.runs import limits

BITS, NONZERO = "bits", "nonzero"
PLACES = ":kept"
SMALLEST = 1024
"""Bytes below which nothing is packed: too little to win."""
AXES = 64
"""The most that a packed tensor may have, as in numpy: products of more sizes take long."""
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers by their bytes: as which a number's bits are looked at."""

Forms = dict[str, dict[str, Any]]
"""By name: `form` and `shape` of each tensor that is packed."""


def pack(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Forms]:
    """The tensors as they go into a file, and the forms of those that are packed; the others are as they were.

    Args:
        tensors: Contiguous ones, on the CPU.
    """
    packed: dict[str, Tensor] = {}
    forms: Forms = {}
    for name, tensor in tensors.items():
        if tensor.numel() * tensor.element_size() < SMALLEST or name + PLACES in tensors:
            packed[name] = tensor
        elif tensor.dtype == torch.bool:
            packed[name] = _to_bits(tensor)
            forms[name] = {"form": BITS, "shape": list(tensor.shape)}
        elif (places := _nonzero(tensor)) is not None:
            whole = tensor.view(_WHOLE[tensor.element_size()])
            packed[name], packed[name + PLACES] = whole[places].view(tensor.dtype), _to_bits(places)
            forms[name] = {"form": NONZERO, "shape": list(tensor.shape)}
        else:
            packed[name] = tensor
    return packed, forms


def unpack(stored: Mapping[str, Tensor], forms: Any, limit: int = limits.TENSORS) -> dict[str, Tensor]:
    """The tensors that `pack` was given; ValueError where `forms` and what is stored do not fit together.

    Or where they become more than `limit` bytes.
    """
    if not isinstance(forms, dict):
        raise ValueError("its forms of tensors are no keys and values")
    shapes = {name: _shape(name, said) for name, said in forms.items()}
    # All sizes first: a small file may claim very many zeros.
    if sum(math.prod(shape) * stored[name].element_size() for name, shape in shapes.items()) > limit:
        raise ValueError(f"its tensors are more than {limit:,} bytes")
    rest, found = dict(stored), {}
    for name, shape in shapes.items():
        values = rest.pop(name)
        if forms[name]["form"] == BITS:
            found[name] = _from_bits(name, values, shape)
        else:
            found[name] = _filled(name, values, _from_bits(name, rest.pop(name + PLACES), shape))
    return {**rest, **found}


def _nonzero(tensor: Tensor) -> Tensor | None:
    """Where a matrix is not +0, if these values and their places take at most three quarters of its bytes."""
    whole = _WHOLE.get(tensor.element_size())
    if tensor.dim() < 2 or whole is None or tensor.is_complex():
        return None  # biases are often all 0 and never pruned: they stay as every reader expects them
    places = tensor.view(whole) != 0
    needed = int(places.sum()) * tensor.element_size() + tensor.numel() // 8
    return places if 4 * needed <= 3 * tensor.numel() * tensor.element_size() else None


def _to_bits(keep: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(keep.reshape(-1).numpy()))


def _from_bits(name: str, bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    count = math.prod(shape)
    if bits.dtype != torch.uint8 or bits.shape != ((count + 7) // 8,):
        raise ValueError(f"{name} has {bits.numel()} bytes of bits, its shape {shape} needs {(count + 7) // 8}")
    whole = np.unpackbits(bits.numpy())
    if whole[count:].any():
        raise ValueError(f"{name} has bits beyond its last entry")
    return torch.from_numpy(whole[:count].view(np.bool_)).reshape(shape)


def _filled(name: str, values: Tensor, places: Tensor) -> Tensor:
    if values.dim() != 1 or len(values) != int(places.sum()) or values.element_size() not in _WHOLE:
        raise ValueError(f"{name} has {values.numel()} values for {int(places.sum())} places")
    tensor = torch.zeros(places.shape, dtype=values.dtype)
    whole = _WHOLE[values.element_size()]  # torch cannot index every type that it has
    tensor.view(whole)[places] = values.view(whole)
    return tensor


def _shape(name: str, said: Any) -> tuple[int, ...]:
    if not isinstance(said, dict) or said.keys() != {"form", "shape"} or said["form"] not in (BITS, NONZERO):
        raise ValueError(f"{name} is in a form that this version does not know")
    shape = said["shape"]
    if not isinstance(shape, list) or len(shape) > AXES:
        raise ValueError(f"{name} has no shape of at most {AXES} axes")
    if not all(type(size) is int and 0 <= size < 2**48 for size in shape):
        raise ValueError(f"{name} has no shape of whole numbers")
    return tuple(shape)
