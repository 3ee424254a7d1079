"""Files of runs as their checksums would have them, for tests that change what such a file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tombola.runs import inventory
from tombola.runs.folder import RunFolder
from tombola.runs.rows import _chain, checks_path
from tombola.runs.sealed import write_sealed


def rewrite(path: Path, content: Any) -> None:
    """Writes `content` into a file of a run folder with a checksum that fits, here and in the run's inventory."""
    with inventory.rewriting(RunFolder(path.parent), path):
        if isinstance(content, dict):
            marked = {key: content[key] for key in ("format",) if content.get(key) not in (None, 2)}
            write_sealed(path, {k: v for k, v in content.items() if k not in ("format", "sha256")})
            if marked:
                path.write_text(json.dumps(json.loads(path.read_text()) | marked))
        else:
            path.write_text(json.dumps(content))


def unsealed(path: Path) -> dict[str, Any]:
    """The content of a JSON file without the marks of its checksum, as somebody writes it by hand."""
    return {k: v for k, v in json.loads(path.read_text()).items() if k not in ("format", "sha256")}


def as_of_earlier_version(root: Path) -> None:
    """Makes a run folder one of before layouts were counted: a whole one, whose manifest does not say its layout."""
    manifest = unsealed(root / "manifest.json")
    del manifest["layout"]
    rewrite(root / "manifest.json", manifest)


def retell(folder: RunFolder, lines: list[str]) -> None:
    """Makes `lines`, each with its newline, the table of a run, with checks that fit."""
    write_table(folder.rows, [line.encode() for line in lines])


def write_table(path: Path, lines: list[bytes]) -> None:
    """Writes a table of these lines, whatever they say, each with its newline, and checks that fit."""
    path.write_bytes(b"".join(lines))
    checks_path(path).write_bytes(b"".join(check + b"\n" for check in _chain(b"", lines)))
