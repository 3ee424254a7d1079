"""Where files of candidates are: in `checkpoints/` while the search runs, those to ship in `models/` at its end."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tombola.models.folder import MASKS, SPEC, WEIGHTS
from tombola.runs import limits
from tombola.runs.atomic import make_folder, read_bytes, write_bytes
from tombola.runs.sealed import read_sealed
from tombola.studies.base.work import AGAIN
from tombola.studies.compress.outcome import Candidate
from tombola.studies.compress.paths import SearchPath

MODELS = "models"
"""The folder with a model folder, and the file to ship, of each network on the front that loses little enough."""


def level_folder(folder: Path, key: Sequence[Any]) -> Path:
    """Of the candidate (structure, distribution, level), below `folder`."""
    structure, distribution, level, *_ = key
    return folder / SearchPath(structure, distribution).name / f"level-{level:02d}"


def shipped_file(candidate: Candidate) -> Path:
    """The file to ship of a candidate, within the folder of its run."""
    path = SearchPath(candidate.structure, candidate.distribution).name
    return Path(MODELS, f"{path}-{candidate.sparsity:g}" if candidate.sparsity else path, str(candidate.file))


def digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(read_bytes(file, limits.TENSORS)).hexdigest()


def digests(level: Path) -> dict[str, str]:
    """Of every file of a candidate, by name; none where it was refused."""
    return {file.name: digest(file) for file in sorted(level.glob("*")) if file.is_file()}


def is_whole(rows_file: Path) -> bool:
    """Whether a candidate was finished, and all its files are as they were then."""
    if not rows_file.exists():
        return False
    recorded: dict[str, str] = read_sealed(rows_file, AGAIN)["files"]
    level = rows_file.with_suffix("")
    return all((level / name).is_file() and digest(level / name) == was for name, was in recorded.items())


def is_shipped(root: Path, candidate: Candidate) -> bool:
    """Whether the file to ship of a candidate is there, as it was scored."""
    file = root / shipped_file(candidate)
    return file.is_file() and digest(file) == candidate.sha256


def ship(level: Path, file: Path) -> None:
    """Copies a file to ship, and the model folder that it came from."""
    make_folder(file.parent)
    for name in (WEIGHTS, MASKS, file.name, SPEC):  # the spec says that all are there
        if (level / name).exists():
            write_bytes(file.parent / name, read_bytes(level / name, limits.TENSORS))
