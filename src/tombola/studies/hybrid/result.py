"""A hybrid study read back: its rows, its lotteries and where it lies. Nothing here trains, measures or writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola.errors import ConfigError, RunFolderError
from tombola.runs.folder import RunFolder
from tombola.runs.rows import Row
from tombola.studies.hybrid.columns import SCHEMA
from tombola.studies.hybrid.config import ROLES, HybridConfig
from tombola.studies.hybrid.units import UNIT, complete_replicates
from tombola.studies.lottery.result import Result, open_run


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


def open_hybrid(root: Path) -> HybridResult:
    """The run in folder `root`, as far as its replicates are complete; its lotteries lie beside it.

    Raises RunFolderError where one of these runs is missing, ConfigError while no replicate is complete.
    """
    folder = RunFolder(root)
    recorded = folder.read_manifest()["must_match"].get("lotteries")
    if not isinstance(recorded, dict) or not all(_is_run_name(role, name) for role, name in recorded.items()):
        raise RunFolderError(f"{folder.manifest}: does not say which lotteries, it is damaged or of another study")
    config = folder.read_config(HybridConfig)
    rows = folder.read_rows(UNIT, SCHEMA)
    complete = complete_replicates(rows, config)
    if not complete:
        raise ConfigError(f"{root}: no replicate is complete yet; the command that began it goes on")
    lotteries = {role: _lottery(root.resolve().parent / name, role) for role, name in recorded.items()}
    return HybridResult(folder, config, [row for row in rows if row["replicate"] in complete], lotteries)


def _lottery(root: Path, role: str) -> Result:
    if not root.is_dir():
        raise RunFolderError(
            f"{root}: this run of the study's {role} is missing; put it back, or run the study again: it trains it anew"
        )
    result = open_run(root).result()
    if result is None:
        raise ConfigError(f"{root}: no replicate of the study's {role} is complete; run the study again: it goes on")
    return result


def _is_run_name(role: str, name: Any) -> bool:
    """Names of folders beside the run, and nothing that leads elsewhere."""
    return role in ROLES and isinstance(name, str) and name not in ("", "..") and Path(name).name == name
