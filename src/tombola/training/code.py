"""What a function, a class or a task of somebody's own computes, as a digest: equal as long as nobody edits it."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from tombola.models.tensors import content_sha256
from tombola.training.seen import PLAIN

KNOWN_PACKAGES = {"tombola", "torch", *sys.stdlib_module_names} - {"__main__"}
"""Whose code is recorded by its version."""


def code_sha256(value: Any, named: str | None = None) -> str:
    """A digest of the source of the modules that define `value` and, as `named`, give it its name.

    Where a module has no source that stays as it is (a notebook, an interactive session, a script, which is edited to
    ask for more), of the code that can be reached from `value` within it.
    """
    inner = value
    while isinstance(inner, functools.partial):
        inner = inner.func
    modules = list(dict.fromkeys(name for name in (named, getattr(inner, "__module__", None)) if name))
    sources = [_source(name) for name in modules]
    if None in sources:
        sources.append("\n".join(_reached(value, set())).encode())
    return digest_of(hashlib.sha256(source).hexdigest() for source in sources if source is not None)


def _source(module: str) -> bytes | None:
    if module == "__main__" or module not in sys.modules:
        return None
    try:
        file = inspect.getsourcefile(sys.modules[module])
        return None if file is None else Path(file).read_bytes()
    except (TypeError, OSError):
        return None


def own_sha256(task: object) -> str:
    """A digest of what is somebody's own in a task, beside its data: equal in every process that makes it again.

    The code of its classes and of functions that it holds, which may stand in any modules, and, where a class is its
    owner's, the attributes that say how it computes. Names with a leading underscore, cached properties and devices
    are none of these. Empty of Tombola's tasks with Tombola's or torch's losses.
    """
    kinds = [kind for kind in type(task).__mro__ if _is_own(kind)]
    parts = [code_sha256(kind) for kind in kinds]
    for name, value in sorted(vars(task).items()):
        if isinstance(value, FunctionType) and _is_own(value):
            parts.append(f"{name} {code_sha256(value)}")
        elif kinds and not _is_passing(type(task), name, value):
            parts.append(f"{name} {digest_of(_contents(value))}")
    return digest_of(parts) if parts else ""


def _is_passing(kind: type, name: str, value: Any) -> bool:
    """Whether an attribute may be another one later in the same task."""
    cached = isinstance(getattr(kind, name, None), functools.cached_property)
    return cached or name.startswith("_") or isinstance(value, torch.device)


def _is_own(value: Any) -> bool:
    return (_module(value) or "").partition(".")[0] not in KNOWN_PACKAGES


def _contents(value: Any) -> Iterator[str]:
    """What an attribute holds, as far as one can look into it; of other objects their type."""
    if isinstance(value, PLAIN):
        yield repr(value)
    elif isinstance(value, Tensor):
        yield content_sha256({"": value})
    elif isinstance(value, nn.Module):
        yield repr(value)
        yield content_sha256(
            {name: tensor for name, tensor in value.state_dict().items() if isinstance(tensor, Tensor)}
        )
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield repr(key)
            yield from _contents(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _contents(part)
    elif isinstance(value, functools.partial):
        yield from _contents((value.func, value.args, value.keywords))
    else:
        kind = value if isinstance(value, (FunctionType, type)) else type(value)
        yield code_sha256(kind) if _is_own(kind) else f"{kind.__module__}:{kind.__qualname__}"


def digest_of(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _reached(value: Any, met: set[int]) -> Iterator[str]:
    """What `value` computes, as text that is the same in every process: code, constants, and what of the same module
    the code names."""
    if isinstance(value, PLAIN):
        yield repr(value)
        return
    if id(value) in met:
        return
    met.add(id(value))
    parts: list[Any] = []
    if isinstance(value, CodeType):
        yield f"{value.co_code.hex()} {value.co_names} {value.co_varnames} {value.co_freevars}"
        parts = list(value.co_consts)
    elif isinstance(value, FunctionType):
        parts = [value.__code__, value.__defaults__, value.__kwdefaults__]
        parts += [cell.cell_contents for cell in value.__closure__ or ()]
        found = [value.__globals__[name] for name in _names(value.__code__) if name in value.__globals__]
        parts += [part for part in found if isinstance(part, PLAIN) or _module(part) == value.__module__]
    elif isinstance(value, type):
        yield f"{value.__module__}:{value.__qualname__}"
        own = {name: part for name, part in vars(value).items() if not name.startswith("__") or callable(part)}
        parts = [own, *(base for base in value.__bases__ if base.__module__ == value.__module__)]
    elif isinstance(value, (staticmethod, classmethod)):
        parts = [value.__func__]
    elif isinstance(value, property):
        parts = [value.fget, value.fset]
    elif isinstance(value, functools.partial):
        parts = [value.func, value.args, value.keywords]
    elif isinstance(value, Mapping):
        parts = [part for item in value.items() for part in item]
    elif isinstance(value, (list, tuple)):
        parts = list(value)
    elif isinstance(value, (set, frozenset)):
        parts = sorted(value, key=repr)
    else:
        yield _module(value) or ""
        parts = [type(value)] if _module(value) == "__main__" else []
    for part in parts:
        yield from _reached(part, met)


def _names(code: CodeType) -> list[str]:
    """The names in a piece of code and in those within it."""
    inner = [name for part in code.co_consts if isinstance(part, CodeType) for name in _names(part)]
    return list(dict.fromkeys([*code.co_names, *inner]))


def _module(value: Any) -> str | None:
    return getattr(value, "__module__", None)
