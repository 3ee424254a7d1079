"""Archives of images, read in memory: nothing of a tar file is ever unpacked to disk.

What a compressed file may grow to is capped, and every member is looked at before it is believed.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tombola.data.layout import LAYOUT, Entry, shown
from tombola.errors import DataError, one_line
from tombola.runs import limits
from tombola.runs.atomic import read_bytes
from tombola.runs.kinds import LONGEST, other_kind

SIZE_LIMIT, DEPTH_LIMIT = limits.DATA, limits.ARCHIVE_DEPTH
Opener = Callable[[io.BytesIO], Any]
PACKED: dict[bytes, Opener] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
"""How a packed file begins, and what opens it."""

Node = dict[str, "Node"] | tuple[int, int]
"""A folder by its names, or where a file begins in the archive and where it ends."""


def tar_tree(path: Path) -> Entry:
    """The tree in a tar file, plain or packed by gzip, bzip2 or xz; one folder around everything is left aside.

    Raises DataError for an archive that is damaged, cut short, unpacks to more than SIZE_LIMIT bytes or
    more files than `limits.members`, or holds anything beside files and folders below its root.
    """
    archive = shown(str(path))
    packed = read_bytes(path, SIZE_LIMIT)
    content = unpacked(packed, path, SIZE_LIMIT)
    tree, around = _tree(content, path, limits.members(len(packed))), ""
    if len(tree) == 1:
        (name, only), *_ = tree.items()
        if isinstance(only, dict) and any(isinstance(node, dict) for node in only.values()):
            tree, around = only, f"{name}/"
    return replace(_entry(tree, "", f"{archive}: {shown(around)}", content), where=archive)


def unpacked(content: bytes, path: Path, limit: int) -> bytes:
    """`content` of `path` as it was before it was packed, if it was; DataError past `limit` bytes, or for damage.

    It is read to its end, where its checksum is.
    """
    limit = min(limit, limits.unpacked(len(content)))
    opener = next((opener for magic, opener in PACKED.items() if content.startswith(magic)), None)
    if opener is None:
        return content
    whole = io.BytesIO()
    try:
        with opener(io.BytesIO(content)) as file:
            while chunk := file.read(1 << 20):
                whole.write(chunk)
                if whole.tell() > limit:
                    raise DataError(f"{shown(str(path))}: unpacks to more than {limit:,} bytes; not read")
    except (EOFError, OSError, zlib.error, lzma.LZMAError, MemoryError) as error:
        raise _damaged(path, error) from None
    return whole.getvalue()


def _tree(content: bytes, path: Path, most: int) -> dict[str, Node]:
    tree: dict[str, Node] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for count, member in enumerate(archive, start=1):
                if count > most:
                    raise DataError(f"{shown(str(path))}: more than {most:,} members for its size; not read")
                archive.members.clear()  # type: ignore[attr-defined]  # of which it would keep all
                _add(tree, member, f"{shown(str(path))}: {shown(member.name)}")
            end = archive.offset
    except DataError:
        raise
    except Exception as error:  # tarfile meets headers of nonsense with several kinds of error
        what = other_kind(content[:LONGEST], "tar archive")
        raise _damaged(path, DataError(what) if what else error) from None
    # It also ends silently where a header is damaged or missing, but an archive ends with a block of zeros.
    if content[end : end + tarfile.BLOCKSIZE] != bytes(tarfile.BLOCKSIZE):
        raise _damaged(path, EOFError("no end after its last member"))
    return tree


def _add(tree: dict[str, Node], member: tarfile.TarInfo, where: str) -> None:
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if member.name.startswith("/") or ".." in parts:
        raise DataError(f"{where}: a name that leads out of the archive; pack the images anew")
    if not (member.isdir() or member.isreg()) or member.issparse():
        raise DataError(f"{where}: a link, a device or no plain file; pack the images themselves")
    if any(part.startswith(".") for part in parts):
        return  # hidden, and left aside in folders, too
    if len(parts) > DEPTH_LIMIT:
        raise DataError(f"{where}: in more than {DEPTH_LIMIT} folders; {LAYOUT}")
    node = tree
    for name in parts if member.isdir() else parts[:-1]:
        inner = node.setdefault(name, {})
        if not isinstance(inner, dict):
            raise DataError(f"{where}: {shown(name)} is a file, too; pack the images anew")
        node = inner
    if member.isreg():
        if not parts or parts[-1] in node:
            raise DataError(f"{where}: there twice, or without a name; pack the images anew")
        node[parts[-1]] = (member.offset_data, member.offset_data + member.size)


def _entry(node: Node, path: str, prefix: str, content: bytes) -> Entry:
    where = f"{prefix}{shown(path)}"
    if isinstance(node, dict):
        below = f"{path}/" if path else ""
        return Entry(path, where, lambda: [_entry(node[name], below + name, prefix, content) for name in node])
    start, end = node
    return Entry(path, where, read=lambda: content[start:end], head=lambda: content[start : min(end, start + LONGEST)])


def _damaged(path: Path, error: BaseException) -> DataError:
    said = one_line(error)
    return DataError(f"{shown(str(path))}: not a tar file, damaged or cut short ({said}); get the archive again")
