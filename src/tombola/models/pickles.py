"""Pickles of torch's files walked through, not run: their steps make plain lists, dicts and descriptions of tensors."""

from __future__ import annotations

import io
import pickletools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tombola.runs import limits

ITEM_LIMIT = 16 * limits.KEYS
"""Of lists, dicts and tuples that a file has copied."""
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


def _pending(metadata: Any) -> frozenset[str]:
    """What a tensor's metadata say is still to be done to its numbers."""
    if not metadata:
        return frozenset()
    if not isinstance(metadata, dict) or not set(metadata) <= {"conj", "neg"}:
        raise NotWeightsError("a tensor with metadata that are not known here")
    return frozenset(name for name, value in metadata.items() if value)


def unpickled(file: io.BytesIO) -> tuple[Any, dict[str, Stored]]:
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
