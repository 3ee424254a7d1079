"""Torch's `.pt` files read as data: the pickle inside is walked through, not run. Nothing in a file is ever called.

Torch's own reader of "weights only" calls what a file names from a list of its own, and takes the memory that the file
asks for. Here the pickle's steps make plain lists, dicts and descriptions of tensors; a tensor is made when its bytes
are there. Both forms are read: a zip since torch 1.6, and before it pickles followed by the bytes of each storage.
"""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import torch
from torch import Tensor

from tombola.models.pickles import Described, NotWeightsError, Stored, unpickled
from tombola.runs import limits

MAGIC = 0x1950A86A20F9469CFC6C
"""The number in the first pickle of the older form."""
STORAGES: dict[str, torch.dtype] = {
    "torch FloatStorage": torch.float32,
    "torch DoubleStorage": torch.float64,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
    "torch ComplexFloatStorage": torch.complex64,
    "torch ComplexDoubleStorage": torch.complex128,
}


def read_torch(content: bytes) -> Any:
    """What was saved: dicts, lists, numbers, text and tensors. `Opaque` stands for tensors of other kinds.

    Raises NotWeightsError for Python objects, and several kinds of error for a file that is damaged.
    """
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name.partition("/")[2]: archive.getinfo(name) for name in archive.namelist()}
            packed = any(member.compress_type != zipfile.ZIP_STORED for member in members.values())
            if packed or (total := sum(member.file_size for member in members.values())) > len(content):
                more = "are packed" if packed else f"are {total:,} bytes"
                raise ValueError(
                    f"its parts {more}, more than the {len(content):,} bytes of the file, expected at most"
                )
            if "byteorder" in members and archive.read(members["byteorder"]).strip() != b"little":
                raise ValueError("written by a machine with another order of bytes")
            found, _ = unpickled(io.BytesIO(archive.read(members["data.pkl"])))
            return _Tensors(lambda stored: archive.read(members[f"data/{stored.key}"]), len(content)).of(found)
    return _older(io.BytesIO(content), len(content))


def _older(file: io.BytesIO, size: int) -> Any:
    magic, _ = unpickled(file)
    if magic != MAGIC:
        raise ValueError("neither a zip of torch's nor its older form")
    _, system = unpickled(file)[0], unpickled(file)[0]
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise ValueError("written by a machine with another order of bytes")
    found, stored = unpickled(file)
    keys, _ = unpickled(file)
    contents: dict[str, bytes] = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        storage = stored[key]
        if count != storage.count:
            raise ValueError(f"storage {key:.20} has {count} numbers, {storage.count} are wanted")
        contents[key] = file.read(count * _type_of(storage).itemsize)
    return _Tensors(lambda storage: contents[storage.key], size).of(found)


def _type_of(stored: Stored) -> torch.dtype:
    if stored.kind.path not in STORAGES:
        raise NotWeightsError(stored.kind.path)
    return STORAGES[stored.kind.path]


class _Tensors:
    """Makes tensors of descriptions, all together of no more bytes than a file of this size may become."""

    def __init__(self, read: Any, size: int) -> None:
        self._read, self._left = read, limits.unpacked(size)
        self._storages: dict[str, Tensor] = {}

    def of(self, value: Any, depth: int = 0) -> Any:
        """`value` with tensors in the place of their descriptions, in dicts and one list deep: state dicts."""
        if isinstance(value, Described):
            return self._tensor(value)
        if isinstance(value, dict) and depth < 3:
            return {key: self.of(inner, depth + 1) for key, inner in value.items()}
        return value

    def _tensor(self, described: Described) -> Tensor:
        size, stride, offset = described.size, described.stride, described.offset
        storage = self._storage(described.storage)
        numbers = torch.Size(size).numel()
        if min((offset, *size, *stride), default=0) < 0 or len(size) != len(stride):
            raise ValueError(f"a tensor of {size} by strides {stride}")
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if numbers and last >= len(storage):
            raise ValueError(f"a tensor of {size} is more than its {len(storage):,} numbers")
        self._left -= numbers * storage.itemsize
        if self._left < 0:
            raise ValueError("its tensors are many times larger than the file")
        if not numbers:
            return storage.new_empty(size)
        found = storage.as_strided(size, stride, offset)
        found = found.conj().resolve_conj() if "conj" in described.pending else found
        return found.neg() if "neg" in described.pending else found

    def _storage(self, stored: Stored) -> Tensor:
        if stored.key not in self._storages:
            content, dtype = self._read(stored), _type_of(stored)
            if len(content) < stored.count * dtype.itemsize:
                raise ValueError(f"a storage of {stored.count:,} numbers is cut short")
            numbers = bytearray(content[: stored.count * dtype.itemsize])
            empty = torch.empty(0, dtype=dtype)
            self._storages[stored.key] = torch.frombuffer(numbers, dtype=dtype) if numbers else empty
        found = self._storages[stored.key]
        if found.dtype != _type_of(stored):
            raise ValueError("one storage of two types")
        return found
