"""A run's folder: where each file lies, who may write it, and what it must agree with to be continued."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tombola.errors import RunFolderError, StorageError
from tombola.runs.atomic import make_folder, read_json, remove_temporaries, write_json, write_text
from tombola.runs.configs import Config, dump_config, identity_hash
from tombola.runs.lock import exclusive

FORMAT = 1
"""Version of the run folder's layout. A folder of another format is refused, never rewritten."""


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
    def lock(self) -> Path:
        return self.root / "lock"

    def read_manifest(self) -> dict[str, Any]:
        """The manifest of an existing run; RunFolderError when this is no run or of another format."""
        if not self.manifest.exists():
            raise RunFolderError(f"{self.root}: no manifest.json here, this is not a run folder")
        try:
            manifest = read_json(self.manifest)
        except StorageError as error:
            raise RunFolderError(f"{error}; put it back from a copy, or use another --out") from None
        found = manifest.get("format") if isinstance(manifest, dict) else None
        if found != FORMAT:
            raise RunFolderError(
                f"{self.root}: run folder of format {found}, this Tombola writes format {FORMAT}; "
                "use the version that made it, or another --out"
            )
        if not isinstance(manifest.get("must_match"), dict):
            raise RunFolderError(
                f"{self.manifest}: has no `must_match`, it is damaged; start afresh with another --out"
            )
        return manifest


def run_folder(out: Path, study: str, name: str, config: Config) -> RunFolder:
    """The folder of this config's run: `<out>/<study>-<name>-<hash8>`."""
    return RunFolder(out / f"{study}-{name}-{identity_hash(study, config)}")


@contextlib.contextmanager
def writing(folder: RunFolder) -> Iterator[None]:
    """Makes the folder if need be and holds its lock; leftovers of killed writers are removed first."""
    make_folder(folder.root)
    with exclusive(folder.lock):
        remove_temporaries(folder.root)
        yield


def begin_or_continue(folder: RunFolder, study: str, config: Config, facts: Mapping[str, Any]) -> None:
    """Writes config and manifest of a new run, or checks that an old one can be continued to the bit.

    `facts` is what the run depends on beside its config: data checksums and the like. Facts and versions
    that differ from the manifest's are refused by name, because the end would not be the same.
    """
    must_match = {"study": study, "threads": 1, "versions": _versions(), **facts}
    if folder.manifest.exists():
        recorded = folder.read_manifest()["must_match"]
        for key, value in must_match.items():
            if recorded.get(key) != value:
                raise RunFolderError(
                    f"{folder.root}: begun with {key} {_short(recorded.get(key))}, now {_short(value)}; "
                    "restore that, or start afresh with another --out"
                )
    elif folder.rows.exists():
        raise RunFolderError(f"{folder.root}: has rows but no manifest; move it away or use another --out")
    else:
        manifest = {
            "format": FORMAT,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "must_match": must_match,
            "machine": machine(),
        }
        write_json(folder.manifest, manifest)
    write_text(folder.config, dump_config(config))


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


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."
