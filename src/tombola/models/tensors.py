"""Tensors on disk: safetensors with a checksum of their content, written atomically. No pickle anywhere.

Masks and tensors that are mostly 0 are packed (`packing`); the checksum is of what they are unpacked to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tombola.errors import StorageError, one_line
from tombola.models.packing import Forms, pack, unpack
from tombola.runs import limits
from tombola.runs.atomic import read_bytes, write_bytes
from tombola.runs.kinds import LONGEST, SAFETENSORS, other_kind
from tombola.runs.strict_json import parse_json

SIZE_LIMIT = limits.TENSORS


class Stored(NamedTuple):
    """The content of a file; `sha256` is the checksum it carries, None of files of other makers.

    `forms` says which tensors were packed, and how.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    sha256: str | None
    forms: Forms


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None) -> str:
    """Writes `tensors` and a JSON-able `facts` to `path`, all or nothing; gives the checksum that the file carries."""
    content, checksum = to_bytes(tensors, facts)
    write_bytes(path, content)
    return checksum


def to_bytes(tensors: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None) -> tuple[bytes, str]:
    """The content of a file of `tensors` and a JSON-able `facts`, and the checksum that it carries."""
    own = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    said = json.dumps(facts or {}, allow_nan=False)
    checksum = _checksum(own, said)
    packed, forms = pack(own)
    content = {"sha256": checksum, "facts": said, **({"packed": json.dumps(forms)} if forms else {})}
    # One key: the order of several is not the same every time, and equal tensors should make equal files.
    return safetensors.torch.save(packed, {"tombola": json.dumps(content, sort_keys=True)}), checksum


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts in `path`; StorageError when the file is missing, cut short or altered.

    Files of other makers carry no checksum and no facts: their tensors are read, their facts are empty.
    """
    stored = read_stored(path)
    return stored.tensors, stored.facts


def load_own(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """As `load_tensors`, for a file that `save_tensors` wrote: StorageError where it carries no checksum any more."""
    stored = read_stored(path)
    if stored.sha256 is None:
        raise StorageError(f"{path}: carries no checksum of Tombola's, the file is another's or was altered")
    return stored.tensors, stored.facts


def read_stored(path: Path) -> Stored:
    """Tensors, facts and checksum of `path`; StorageError when the file is missing, cut short or altered."""
    return from_bytes(read_bytes(path, SIZE_LIMIT), path)


def from_bytes(content: bytes, path: Path, limit: int = SIZE_LIMIT) -> Stored:
    """Tensors, facts and checksum in what `to_bytes` gave, read from `path`; StorageError where it was altered.

    `limit`: the most bytes that packed tensors may become.
    """
    try:
        own, facts, forms = _metadata(content)
        tensors = unpack(safetensors.torch.load(content), forms, limit)
    except Exception as error:  # safetensors, json and torch meet damage with many kinds of error
        what = other_kind(content[:LONGEST], SAFETENSORS)
        raise StorageError(f"{path}: {what or 'damaged or cut short'} ({one_line(error)})") from None
    if own and (own.keys() - {"packed"} != {"facts", "sha256"} or own["sha256"] != _checksum(tensors, own["facts"])):
        raise StorageError(f"{path}: its content does not match its checksum, the file was altered or damaged")
    return Stored(tensors, facts, own.get("sha256"), forms)


def load_tensors_like(path: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in `path`, our own file; StorageError unless names, shapes and types are those of `like`."""
    tensors, _ = load_own(path)
    if _kinds(tensors) != _kinds(like):
        raise StorageError(f"{path}: its tensors are not those of this model, the file is another's or was altered")
    return {name: tensors[name] for name in like}


def _kinds(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def content_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes: equal exactly when every tensor is equal to the bit."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(_bytes(tensor).numpy().data)
    return digest.hexdigest()


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equality of type, shape and bytes, which tells -0 from 0 and calls NaN equal to itself."""
    return a.dtype == b.dtype and a.shape == b.shape and _bytes(a).equal(_bytes(b))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _checksum(tensors: Mapping[str, Tensor], facts: str) -> str:
    return hashlib.sha256(f"{content_sha256(tensors)}|{facts}".encode()).hexdigest()


def _metadata(content: bytes) -> tuple[dict[str, str], dict[str, Any], Forms]:
    """Our own part of the header, the facts in it and the forms of tensors; all empty for files of other makers."""
    length = int.from_bytes(content[:8], "little")
    if length > len(content) - 8:
        raise ValueError(f"a header of {length:,} bytes in a file of {len(content):,}")
    header = parse_json(content[8 : 8 + length])
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or len(header) > limits.KEYS:
        raise ValueError("its header holds no tensors by name")
    own = parse_json(metadata.get("tombola", "{}"))
    if not isinstance(own, dict) or not all(isinstance(value, str) for value in own.values()):
        raise ValueError("its metadata are none that Tombola wrote")
    facts = parse_json(own.get("facts", "{}"))
    if not isinstance(facts, dict):
        raise ValueError("its facts are no keys and values")
    return own, facts, parse_json(own.get("packed", "{}"))
