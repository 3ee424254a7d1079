"""JSON files that know when they were altered: a format number first, the SHA-256 of all other bytes last.

Two marks, and not one: a flipped bit may hide one of them, and the other still says that there was a checksum. A file
without either was written by hand and is read as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tombola.errors import StorageError
from tombola.runs import limits
from tombola.runs.atomic import json_in, read_bytes, write_text

FORMAT = 2
"""Of files with a checksum; 1 were those before."""
_SEAL = re.compile(rb'"sha256": "([0-9a-f]{64})"\n\}\n\Z')


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content`, atomically, with its format and its checksum."""
    text = json.dumps({"format": FORMAT, **content, "sha256": ""}, indent=1, allow_nan=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_text(path, text.removesuffix('""\n}\n') + f'"{digest}"\n}}\n')


class Opened(NamedTuple):
    """The content of a file without its two marks, and what is wrong with these; None where nothing is."""

    content: dict[str, Any]
    trouble: str | None


def read_sealed(path: Path, remedy: str, limit: int = limits.JSON) -> dict[str, Any]:
    """The content that `write_sealed` wrote, without its two marks; that of a file without marks as it is.

    Raises StorageError with the `remedy` where the file is no JSON object, was altered, or is of a format to come.
    """
    opened = open_sealed(path, remedy, limit)
    if opened.trouble is not None:
        raise StorageError(opened.trouble)
    return opened.content


def open_sealed(path: Path, remedy: str, limit: int = limits.JSON) -> Opened:
    """As `read_sealed`, for a reader that looks at the content first: what is wrong there may say more."""
    raw = read_bytes(path, limit)
    content = json_in(raw, path, remedy)
    if not isinstance(content, dict):
        raise StorageError(f"{path}: holds no keys and values, the file is damaged; {remedy}")
    bare = {key: value for key, value in content.items() if key not in ("format", "sha256")}
    found = content.get("format")
    if not is_sealed(content) or (found == FORMAT and _fits(raw)):
        return Opened(bare, None)
    if isinstance(found, int) and found > FORMAT:
        return Opened(bare, f"{path}: of format {found}, this Tombola reads up to {FORMAT}; use the newer version")
    return Opened(bare, f"{path}: does not match its checksum (format {found}), it is damaged or was altered; {remedy}")


def is_sealed(content: Mapping[str, Any]) -> bool:
    """Whether parsed JSON carries a mark of a file with a checksum; format 1 had none."""
    return "sha256" in content or content.get("format", 1) != 1


def _fits(raw: bytes) -> bool:
    found = _SEAL.search(raw)
    if found is None:
        return False
    blank = raw[: found.start(1)] + raw[found.end(1) :]
    return hashlib.sha256(blank).hexdigest().encode() == found.group(1)
