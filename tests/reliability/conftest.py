"""What the reliability tests share: a small study on disk, the command in this process, the state of a folder."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from small_study import SMALL_STUDY

Invoke = Callable[..., Result]
WriteConfig = Callable[..., Path]
Snapshot = Callable[[Path], dict[str, tuple[int, int, bytes]]]


@pytest.fixture(scope="session")
def write_config() -> WriteConfig:
    """`write_config(folder, **changes)` writes the small study, one level of keys merged into it."""

    def write(folder: Path, **changes: Any) -> Path:
        content = copy.deepcopy(SMALL_STUDY)
        for key, value in changes.items():
            both = isinstance(value, dict) and isinstance(content.get(key), dict)
            content[key] = content[key] | value if both else value
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "study.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture(scope="session")
def invoke() -> Invoke:
    """`invoke("imp", config, ...)` runs the command line in this process."""

    def run(*arguments: object) -> Result:
        from tombola.cli import app

        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture(scope="session")
def snapshot() -> Snapshot:
    """Every file and folder below a path: size, time of change, content."""

    def take(root: Path) -> dict[str, tuple[int, int, bytes]]:
        found = {}
        for path in sorted(root.rglob("*")):
            content = path.read_bytes() if path.is_file() else b""
            changed = path.stat().st_mtime_ns if path.is_file() else 0
            found[path.relative_to(root).as_posix()] = (len(content), changed, content)
        return found

    return take
