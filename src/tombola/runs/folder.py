"""A run's folder: where each file lies, who may write it, and what it must agree with to be continued."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tombola.errors import ConfigError, RunFolderError, StorageError
from tombola.runs import limits
from tombola.runs.atomic import (
    TEMPORARY_SUFFIX,
    make_folder,
    read_bytes,
    refuse_links,
    remove,
    remove_temporaries,
    storage_errors,
    write_text,
)
from tombola.runs.columns import Schema
from tombola.runs.configs import C, Config, dump_config, identity_hash, load_config
from tombola.runs.lock import exclusive
from tombola.runs.rows import Row, RowTable, read_rows
from tombola.runs.sealed import open_sealed, write_sealed

LAYOUT = 3
"""Of run folders: their files, the keys of configs, the columns of rows. Others are refused, never rewritten."""
CONFIG_SEAL = "# sha256 of the lines above: "
PROCESSOR, DEVICE = "processor", "device"
"""Facts that decide the last bits: of the processor, and of what computes beside it."""


@dataclass(frozen=True)
class RunFolder:
    """Every file name of a run in one place."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def rows(self) -> Path:
        return self.root / "rows.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def finished(self) -> Path:
        """The inventory of a finished run; see `inventory`."""
        return self.root / "finished.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    def read_manifest(self) -> dict[str, Any]:
        """The manifest of an existing run; RunFolderError when this is no run, of another layout, or damaged.

        Raises StorageError where the folder holds links or devices: nothing outside of it is read as part of a run.
        """
        if not self.manifest.exists():
            if self.rows.exists():
                raise RunFolderError(f"{self.root}: has rows but no manifest; move it away or use another --out")
            raise RunFolderError(f"{self.root}: no manifest.json here, this is not a run folder")
        refuse_links(self.root)
        remedy = "put it back from a copy, or move the folder away and start afresh"
        try:
            manifest, trouble = open_sealed(self.manifest, remedy)
        except StorageError as error:
            said = str(error)
            raise RunFolderError(said if said.endswith(remedy) else f"{said}; {remedy}") from None
        if trouble is not None:
            raise RunFolderError(trouble)
        if (layout := manifest.get("layout")) != LAYOUT:
            whose = "an earlier version of Tombola" if layout is None else f"layout {layout}, this Tombola has {LAYOUT}"
            raise RunFolderError(f"{self.root}: run folder of {whose}; use the version that made it, or another --out")
        if not isinstance(manifest.get("must_match"), dict):
            raise RunFolderError(
                f"{self.manifest}: has no `must_match`, it is damaged; start afresh with another --out"
            )
        return manifest

    def refuse_other_layouts(self) -> None:
        """RunFolderError where another version of Tombola began the run; a run that is not begun yet is none."""
        if self.manifest.exists():
            self.read_manifest()

    def read_rows(self, columns: Sequence[str], schema: Schema | None = None) -> list[Row]:
        """The rows of the run, each with its `columns` and as its `schema` has it; an error names the line."""
        self.refuse_other_layouts()
        return read_rows(self.rows, columns, schema)

    def table(self, unit: Sequence[str], schema: Schema | None = None) -> RowTable:
        """The run's rows, to be appended to by the one who holds its lock."""
        self.refuse_other_layouts()
        return RowTable(self.rows, unit, schema)

    def write_config(self, config: Config) -> None:
        """Writes the complete config, and below it a comment with the checksum of what is above."""
        content = dump_config(config)
        write_text(self.config, f"{content}{CONFIG_SEAL}{_digest(content)}\n")

    def read_config(self, kind: type[C]) -> C:
        """The config that the run was begun with; ConfigError where it is missing, damaged or was altered."""
        self.refuse_other_layouts()
        if not self.config.exists():
            raise ConfigError(
                f"{self.config}: is gone; put it back from a copy, or run the command that began it again"
            )
        with storage_errors("read", self.config):
            content, seal, digest = (
                read_bytes(self.config, limits.CONFIG).decode("utf-8", "replace").rpartition(CONFIG_SEAL)
            )
        if not seal or digest != f"{_digest(content)}\n":
            raise ConfigError(
                f"{self.config}: does not match its checksum, it was altered or damaged; put it back from a copy, "
                "or run the command that began it again"
            )
        return load_config(self.config, kind)


def run_folder(out: Path, study: str, name: str, config: Config) -> RunFolder:
    """The folder of this config's run: `<out>/<study>-<name>-<hash8>`.

    `out` may be a link; the run's own folder may not: RunFolderError, for a link there leads somewhere else.
    """
    root = out / f"{study}-{name}-{identity_hash(study, config)}"
    if root.is_symlink():
        raise RunFolderError(f"{root}: is a link; put the run's folder itself there, or use another --out")
    return RunFolder(root)


def holds_nothing(root: Path) -> bool:
    """Whether `root` is empty but for what a command leaves that is killed while it begins: its lock, half files."""
    return all(
        path.name.endswith(TEMPORARY_SUFFIX) or (path.name == "lock" and path.is_file() and not path.stat().st_size)
        for path in root.iterdir()
    )


@contextlib.contextmanager
def writing(folder: RunFolder) -> Iterator[None]:
    """Makes the folder if need be and holds its lock; leftovers of killed writers are removed first.

    Raises StorageError where the folder holds links or devices: nothing outside of it is written.
    """
    make_folder(folder.root)
    refuse_links(folder.root)
    with exclusive(folder.lock):
        remove_temporaries(folder.root)
        yield


def begin_or_continue(folder: RunFolder, study: str, config: Config, facts: Mapping[str, Any]) -> None:
    """Writes config and manifest of a new run, or checks that an old one can be continued to the bit.

    From then on the run is not finished (any more).

    `facts` is what the run depends on beside its config: data checksums and the like. Facts and versions
    that differ from the manifest's are refused by name, because the end would not be the same. What is None is not
    written: it is so where nothing is said of it.
    """
    must_match = _must_match(study, facts)
    if folder.manifest.exists():
        check_facts(folder, must_match)
    elif folder.rows.exists():
        raise RunFolderError(f"{folder.root}: has rows but no manifest; move it away or use another --out")
    else:
        manifest = {
            "layout": LAYOUT,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "must_match": {key: value for key, value in must_match.items() if value is not None},
            "machine": machine(),
        }
        write_sealed(folder.manifest, manifest)
    remove(folder.finished)  # first: a kill after the next line would leave a config that seems altered
    folder.write_config(config)


def check_continued(folder: RunFolder, study: str, facts: Mapping[str, Any]) -> None:
    """RunFolderError, by name, where what is measured now would not be measured as the run was; nothing is written."""
    check_facts(folder, _must_match(study, facts))


def _must_match(study: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"study": study, "threads": 1, "versions": _versions(), **facts}


def check_facts(folder: RunFolder, facts: Mapping[str, Any]) -> None:
    """RunFolderError, by name, where what a run was begun with is not so now; nothing is written."""
    recorded = folder.read_manifest()["must_match"]
    for key, value in facts.items():
        if recorded.get(key) != value:
            way_out = "go on where it was begun" if key in (PROCESSOR, DEVICE) else "restore that"
            raise RunFolderError(
                f"{folder.root}: begun with {key} {_short(recorded.get(key))}, now {_short(value)}; "
                f"{way_out}, or start afresh with another --out"
            )


def machine() -> dict[str, Any]:
    """What the numbers of a run were measured on, without anything that identifies its owner."""
    return {"system": platform.system(), "cpu": _cpu_name(), "cores": os.cpu_count()}


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("tombola", "torch", "numpy", "scikit-learn")}
    return {"python": platform.python_version(), **packages}


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 120 else text[:117] + "..."
