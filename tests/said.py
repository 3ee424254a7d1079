"""What a command says: its result on stdout, for people or as one JSON object; on stderr progress, notes and warnings,
and where it fails one line more, the error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from rich.cells import cell_len

from tombola.studies.base.output import Output

ERROR = "error: "
WIDTH = 80


def fits(text: str) -> bool:
    """No line is wider than a terminal of 80 columns, but for a word that is longer by itself."""
    return all(cell_len(line) <= WIDTH or " " not in line.strip() for line in text.splitlines())


def json_of(result: Result) -> dict[str, Any]:
    """The one object on stdout, which must be of the documented form and say why of every null number."""
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads(result.stdout, parse_constant=pytest.fail)
    assert Output.model_validate(content).model_dump(mode="json") == content
    assert content.keys() == set(Output.model_fields)
    for pointer in content["reasons"]:
        assert at(content, pointer) is None
    for path in content["paths"].values():
        assert Path(path).is_absolute()
        assert Path(path).exists()
    return content


def at(content: Any, pointer: str) -> Any:
    """What a JSON pointer leads to."""
    for key in pointer.split("/")[1:]:
        content = content[int(key) if isinstance(content, list) else key.replace("~1", "/").replace("~0", "~")]
    return content


def error_in(stderr: str) -> str:
    """The error that a command ended with: one line, the last one."""
    lines = stderr.splitlines()
    assert [line for line in lines if line.startswith(ERROR)] == lines[-1:], stderr
    return lines[-1]
