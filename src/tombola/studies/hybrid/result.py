"""A hybrid study read back: its rows, its lotteries and where it lies. Nothing here trains, measures or writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola.errors import RunFolderError
from tombola.runs.folder import RunFolder
from tombola.runs.rows import Row
from tombola.studies.base.opened import open_study, read_result
from tombola.studies.hybrid.config import ROLES, HybridConfig
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.study import Lottery


@dataclass(frozen=True)
class HybridResult:
    """The rows of a study, and the lotteries it stands on by name.

    `lotteries` has `cnn` (a VGG, all layers pruned) and perhaps `head` (a dense head on the cached features of a
    frozen base) and `lenet`. What was not run is not in it.
    """

    folder: RunFolder
    config: HybridConfig
    rows: list[Row]
    lotteries: dict[str, Result]


def read_lotteries(folder: RunFolder, facts: Mapping[str, Any]) -> dict[str, Result]:
    """The lotteries by role that the `facts` of a run name; they lie beside it, as far as they are complete.

    Raises RunFolderError where one is missing, ConfigError while no replicate of it is complete.
    """
    named = facts.get("lotteries")
    if not isinstance(named, dict) or not all(_is_run_name(role, name) for role, name in named.items()):
        raise RunFolderError(f"{folder.manifest}: does not say which lotteries, it is damaged or of another study")
    return {role: _lottery(folder.root.resolve().parent / name, role) for role, name in named.items()}


def _lottery(root: Path, role: str) -> Result:
    if not root.is_dir():
        raise RunFolderError(
            f"{root}: this run of the study's {role} is missing; put it back, or run the study again: it trains it anew"
        )
    return read_result(open_study(Lottery, root))


def _is_run_name(role: str, name: Any) -> bool:
    """Names of folders beside the run, and nothing that leads elsewhere."""
    return role in ROLES and isinstance(name, str) and name not in ("", "..") and Path(name).name == name
