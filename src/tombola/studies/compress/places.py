"""Where files of candidates are: in `checkpoints/` while the search runs, those to ship in `models/` at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tombola.models.folder import MASKS, SPEC, WEIGHTS
from tombola.runs import limits
from tombola.runs.atomic import make_folder, read_bytes, write_bytes
from tombola.studies.compress.outcome import Candidate
from tombola.studies.compress.paths import SearchPath

MODELS = "models"
"""The folder with a model folder, and the file to ship, of each network on the front that loses little enough."""


def level_folder(folder: Path, key: Sequence[Any]) -> Path:
    """Of the candidate (structure, distribution, level), below `folder`."""
    structure, distribution, level, *_ = key
    return folder / SearchPath(structure, distribution).name / f"level-{level:02d}"


def place_of(candidate: Candidate) -> Path:
    """The file to ship of a candidate, within the folder of its run."""
    path = SearchPath(candidate.structure, candidate.distribution).name
    return Path(MODELS, f"{path}-{candidate.sparsity:g}" if candidate.sparsity else path, str(candidate.file))


def ship(level: Path, file: Path) -> None:
    """Copies a file to ship, and the model folder that it came from; nothing where they have been moved before."""
    if not level.exists():
        return
    make_folder(file.parent)
    for name in (WEIGHTS, MASKS, file.name, SPEC):  # the spec says that all are there
        if (level / name).exists():
            write_bytes(file.parent / name, read_bytes(level / name, limits.TENSORS))
