"""The text inside the package, each file checked by its checksum as it is read; `files/SOURCES.md` names its sources.

Three parts of a text share nothing: what models are pre-trained on, what tasks train on and what they hold out.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Literal

from tombola.errors import DataError
from tombola.runs import limits
from tombola.runs.atomic import read_bytes, read_json

FOLDER = Path(__file__).parent / "files"
CHECKSUMS = "checksums.json"
LARGEST = limits.MIB
TextPart = Literal["pretraining", "train", "held_out"]
PRETRAINING = ("english", "verse", "speeches", "names", "german", "french")
"""The texts that have a part to pre-train on, all in the public domain. Swedish has none: it probes plasticity."""


@functools.cache
def text_of(kind: str, part: TextPart) -> str:
    """A part of a shipped text, such as ("german", "train"); DataError where its file is damaged."""
    return shipped_bytes(f"{kind}.{part}.txt").decode()


def shipped_bytes(name: str) -> bytes:
    """A shipped file's content; DataError where it is not the one of this version."""
    path = FOLDER / name
    content = read_bytes(path, LARGEST)
    if hashlib.sha256(content).hexdigest() != read_json(FOLDER / CHECKSUMS).get(name):
        raise DataError(f"{path}: is damaged, its checksum is not the one of this version: install tombola again")
    return content
