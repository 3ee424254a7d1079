"""What `import tombola` offers: names without torch, and types that a checker holds callers to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tombola

ROOT = Path(__file__).parent.parent
USES = """
import tombola
from tombola import Masks, PerLayerRates, find_ticket, load_model, prune, sparsify
from torch import nn

model = nn.Linear(2, 2)
masks: Masks = prune(model, 0.5, criterion="taylor", structure="filter")
masks = tombola.prune(model, distribution=PerLayerRates(0.2, {"2": 0.1}))
version: str = tombola.__version__
prune(model, "lots")  # wrong: incompatible type "str"
prune(model, 0.5, nonsense=3)  # wrong: Unexpected keyword argument "nonsense"
prune(model, "lots", nonsense=3)  # wrong: Unexpected keyword argument "nonsense"
tombola.doesnotexist()  # wrong: no attribute "doesnotexist"
tombola.prun  # wrong: maybe "prune"?
number: int = prune(model, 0.5)  # wrong: expression has type "Masks"
load_model(3)  # wrong: incompatible type "int"
from tombola import doesnotexist  # wrong: no attribute "doesnotexist"
"""
SETTINGS = """
[mypy]
strict = True
[mypy-torch.*,numpy.*,scipy.*,sklearn.*,pydantic.*,matplotlib.*,plotly.*,yaml.*,safetensors.*,rich.*]
follow_imports = skip
ignore_missing_imports = True
"""
"""Other libraries are as if unknown: they would take a minute to read, and the types in question are our own."""


def test_a_type_checker_accepts_right_uses_and_rejects_wrong_ones(tmp_path: Path) -> None:
    (tmp_path / "uses.py").write_text(USES)
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "uses.py"]
    environment = os.environ | {"MYPYPATH": str(ROOT / "src")}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    said = [line.partition(": error: ") for line in result.stdout.splitlines() if line.startswith("uses.py")]
    errors = [(int(where.split(":")[1]), what) for where, error, what in said if error]
    wrong = {n: line.partition("# wrong: ")[2] for n, line in enumerate(USES.splitlines(), 1) if "# wrong" in line}
    assert {line for line, _ in errors} == set(wrong), result.stdout + result.stderr
    for line, expected in wrong.items():
        assert any(expected in what for at, what in errors if at == line), expected


def test_names_are_there_without_torch() -> None:
    code = "import sys, tombola; print(sorted(dir(tombola)) == tombola.__all__, 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["True", "False"]


@pytest.mark.parametrize("name", tombola.__all__)
def test_every_name_leads_somewhere(name: str) -> None:
    assert getattr(tombola, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'tombola' has no attribute 'doesnotexist'"):
        tombola.doesnotexist  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("options", [["--version"], ["-h"], ["imp", "-h"], ["configs", "-h"]])
def test_python_m_tombola(options: list[str]) -> None:
    result = subprocess.run([sys.executable, "-m", "tombola", *options], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert (f"tombola {tombola.__version__}\n" if "--version" in options else "Usage: ") in result.stdout
