"""The README's promises that can be run: its Python runs, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tombola.cli import app
from tombola.models import ModelSpec, build, save_model
from tombola.pruning import prune

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    spec = ModelSpec(input_shape=(1, 8, 8), classes=10, seed=0)
    model = build(spec)
    save_model("my-ticket", spec, model, prune(model, 0.9))
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(blocks) >= 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "Masks(3 layers" in capsys.readouterr().out


def test_its_commands_exist() -> None:
    commands = set(re.findall(r"\.venv/bin/tombola (\w+)", README))
    assert {"imp", "extract", "stability", "list", "report"} <= commands
    for command in commands:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)`?", README):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target
