"""The container: a safetensors file inside one zstandard frame, each row of bytes in blocks of its own.

`zstd -d` and any reader of safetensors open it. Blocks of their own have tables of their own: gaps, exponents and
int8 values are distributed too differently to share one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zstandard
from torch import Tensor

from tombola.errors import StorageError
from tombola.models.tensors import Stored, from_bytes, to_bytes
from tombola.runs import limits
from tombola.runs.kinds import LONGEST, other_kind

WINDOW = 23
"""Base-2 logarithm of how many bytes a reader looks back at most; a file that asks for more is none of ours."""
_PARAMETERS = zstandard.ZstdCompressionParameters.from_level(
    19, window_log=WINDOW, strategy=zstandard.STRATEGY_BTOPT, min_match=6
)
"""Short matches are chance in such bytes: looked for, they cost a ticket 3 % of its size."""


def packed(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """Tensors and facts as the content of a file."""
    content, _ = to_bytes(tensors, facts)
    packer = zstandard.ZstdCompressor(compression_params=_PARAMETERS).compressobj(size=len(content))
    found, start = [], 0
    for _, end in _parts(content):
        found += [packer.compress(content[start:end]), packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)]
        start = end
    return b"".join([*found, packer.compress(content[start:]), packer.flush()])


def unpacked(content: bytes, path: Path) -> Stored:
    """What `packed` was given, from the content of `path`; StorageError in one line for anything else.

    Memory is bounded by the size of the file, whatever it claims.
    """
    plain, most = _plain(content, path), limits.ticket(len(content))
    if (header := int.from_bytes(plain[:8], "little")) > limits.TICKET_HEADER:
        raise StorageError(f"{path}: has a header of {header:,} bytes, {limits.TICKET_HEADER:,} are the most")
    return from_bytes(plain, path, most - len(plain))


def sizes(content: bytes) -> dict[str, int]:
    """How many bytes of a file that was read each row of bytes takes, by name; the rest of its tensors is in `""`."""
    plain = zstandard.decompress(content)
    ends = {end: name for name, end in _parts(plain)}
    reader = zstandard.ZstdDecompressor().decompressobj()
    at = zstandard.frame_header_size(content)
    reader.decompress(content[:at])
    reached, begun, found, last = 0, 0, dict[str, int](), False
    while not last:
        head = int.from_bytes(content[at : at + 3], "little")  # of a block (RFC 8878): last, type, size
        last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
        end = at + 3 + (1 if kind == 1 else size)
        reached += len(reader.decompress(content[at:end]))
        at = end
        if reached in ends or last:
            name = ends.get(reached, "")
            found[name] = found.get(name, 0) + at - begun
            begun = at
    return found


def _plain(content: bytes, path: Path) -> bytes:
    most = limits.ticket(len(content))
    try:
        size = zstandard.frame_content_size(content)
        if size > most:
            raise StorageError(f"{path}: says that it unpacks to {size:,} bytes, {most:,} are the most for its size")
        if size < 0:
            raise StorageError(f"{path}: does not say what it unpacks to, it is no ticket file")
        return zstandard.ZstdDecompressor(max_window_size=1 << WINDOW).decompress(content, allow_extra_data=False)
    except zstandard.ZstdError as error:
        what = other_kind(content[:LONGEST], "zstandard") or "damaged or cut short"
        raise StorageError(f"{path}: no ticket file, {what} ({error})") from None


def _parts(content: bytes) -> Iterator[tuple[str, int]]:
    """Where each row of bytes ends, and where what is before the first one does, by name; the latter's is `""`."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    ends = {name: said["data_offsets"] for name, said in header.items() if name != "__metadata__"}
    rows = sorted((at, name) for name, at in ends.items() if header[name]["dtype"] == "U8")
    yield "", start + (rows[0][0][0] if rows else 0)
    for (_, end), name in rows:
        yield name, start + end
