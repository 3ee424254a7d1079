"""Torch's `.pt` files read as data: the pickle inside is walked through, not run. Nothing in a file is ever called.

Torch's own reader of "weights only" calls what a file names from a list of its own, and takes the memory that the file
asks for. Here the pickle's steps make plain lists, dicts and descriptions of tensors; a tensor is made when its bytes
are there. Both forms are read: a zip since torch 1.6, and before it pickles followed by the bytes of each storage.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tombola.runs import limits

MAGIC = 0x1950A86A20F9469CFC6C
"""The number in the first pickle of the older form."""
ITEM_LIMIT = 16 * limits.KEYS
"""Of lists, dicts and tuples that a file has copied."""
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
REBUILD = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor")
PARAMETER = ("torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state")
PLAIN = ("collections OrderedDict", "__builtin__ set", "builtins set", "collections Counter", "torch Size")
OF_TORCH = (
    "torch ",
    "torch._utils ",
    "torch.nn.parameter ",
    "torch.serialization ",
    "torch._tensor ",
    "torch.storage ",
)
OF_PYTHON = ("_codecs encode", "builtins bytearray", "builtins complex", "__builtin__ bytearray", "__builtin__ complex")
AXIS_LIMIT = 16


@dataclass(frozen=True)
class Name:
    """A class or function that a file names."""

    path: str


@dataclass(frozen=True)
class Opaque:
    """What a file would have had called: an object, or a tensor of a kind that is not read."""

    path: str


@dataclass(frozen=True)
class Stored:
    """A storage: so many numbers of a type, under a key."""

    kind: Name
    key: str
    count: int


@dataclass(frozen=True)
class Described:
    """A tensor: a window on a storage."""

    storage: Stored
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    pending: frozenset[str] = frozenset()
    """What is still to be done to its numbers: `conj`, `neg`."""


class NotWeightsError(ValueError):
    """A file that holds Python objects beside weights."""


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
            found, _ = _unpickled(io.BytesIO(archive.read(members["data.pkl"])))
            return _Tensors(lambda stored: archive.read(members[f"data/{stored.key}"]), len(content)).of(found)
    return _older(io.BytesIO(content), len(content))


def _older(file: io.BytesIO, size: int) -> Any:
    magic, _ = _unpickled(file)
    if magic != MAGIC:
        raise ValueError("neither a zip of torch's nor its older form")
    _, system = _unpickled(file)[0], _unpickled(file)[0]
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise ValueError("written by a machine with another order of bytes")
    found, stored = _unpickled(file)
    keys, _ = _unpickled(file)
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


def _pending(metadata: Any) -> frozenset[str]:
    """What a tensor's metadata say is still to be done to its numbers."""
    if not metadata:
        return frozenset()
    if not isinstance(metadata, dict) or not set(metadata) <= {"conj", "neg"}:
        raise NotWeightsError("a tensor with metadata that are not known here")
    return frozenset(name for name, value in metadata.items() if value)


def _unpickled(file: io.BytesIO) -> tuple[Any, dict[str, Stored]]:
    """The value of the pickle that begins here, and the storages it names; the file is left behind its end."""
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(file):
        machine.step(opcode.name, argument)
    return machine.stack.pop(), machine.stored


class _Machine:
    """The pickle's stack. Only steps that torch's files have; all others are refused."""

    CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
    GIVEN = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINSTRING")
    MAKING: Mapping[str, type] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
    TUPLES: Mapping[str, int] = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.stored: dict[str, Stored] = {}
        self.copied = 0

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in self.CONSTANTS:
            stack.append(self.CONSTANTS[name])
        elif name in self.GIVEN:
            stack.append(argument)
        elif name in self.MAKING:
            stack.append(self.MAKING[name]())
        elif name in self.TUPLES:
            stack[-self.TUPLES[name] :] = [tuple(stack[-self.TUPLES[name] :])]
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(self._marked()))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "GLOBAL":
            stack.append(_named(argument))
        elif name not in ("PROTO", "STOP"):
            getattr(self, f"_{name.lower()}", self._unknown)()

    def _marked(self) -> list[Any]:
        start = self.marks.pop()
        items, self.stack[start:] = self.stack[start:], []
        return items

    def _unknown(self) -> None:
        raise NotWeightsError("a step that torch never writes")

    def _append(self) -> None:
        item = self.stack.pop()
        self._top(list).append(item)

    def _appends(self) -> None:
        items = self._marked()
        self._top(list).extend(items)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._top(dict)[key] = value

    def _setitems(self) -> None:
        items = self._marked()
        self._top(dict).update(zip(items[::2], items[1::2], strict=True))

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise ValueError("its steps do not fit together")
        return self.stack[-1]

    def _build(self) -> None:
        """The attributes of an object, such as the versions in a state dict: not needed."""
        self.stack.pop()

    def _newobj(self) -> None:
        self._reduce()

    def _reduce(self) -> None:
        given, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Name) or not isinstance(given, tuple):
            raise ValueError("its steps do not fit together")
        if called.path in REBUILD:
            storage, offset, size, stride = given[:4]
            if not isinstance(storage, Stored) or len(size) > AXIS_LIMIT or len(stride) > AXIS_LIMIT:
                raise ValueError("a tensor without a storage, or of too many axes")
            window = int(offset), tuple(map(int, size)), tuple(map(int, stride))
            self.stack.append(Described(storage, *window, _pending(given[6] if len(given) > 6 else None)))
        elif called.path in PARAMETER:
            self.stack.append(given[0])
        elif called.path in PLAIN:
            self.stack.append(self._plain(called.path, *given))
        else:
            self.stack.append(Opaque(called.path))

    def _plain(self, path: str, given: Any = ()) -> Any:
        self.copied += len(given)
        if self.copied > ITEM_LIMIT:
            raise ValueError("more in it than is expected at most")
        return dict(given) if path.endswith(("OrderedDict", "Counter")) else tuple(given)

    def _binpersid(self) -> None:
        word, kind, key, _, count, *view = self.stack.pop()
        if any(part is not None for part in view):
            raise NotWeightsError("a storage that is part of another one")
        if word not in ("storage", b"storage") or not isinstance(kind, Name) or not isinstance(count, int):
            raise ValueError("a part of the file that is no storage")
        stored = Stored(kind, str(key), count)
        self.stored[stored.key] = stored
        self.stack.append(stored)


def _named(argument: str) -> Name:
    if argument not in (*PLAIN, *OF_PYTHON) and not argument.startswith(OF_TORCH):
        raise NotWeightsError(argument)
    return Name(argument)
