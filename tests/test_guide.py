"""The guide's promises that can be run: its examples, its commands, its links, and that it leaves nothing out.

A page's blocks run in order, in one namespace and one temporary folder: ```python is executed; ```yaml and ```python
blocks that begin with `# NAME.yaml` or `# NAME.py` are written to that file, too; ```sh is really run; ```shell (needs
data or minutes) only as far as its options and config are read.
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from tombola.cli import app
from tombola.cli.configs import read_config
from tombola.pruning import criteria, distributions, schedules, structures
from tombola.studies.hybrid.config import HybridConfig
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.single.config import CompareConfig, TrainConfig

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "guide"
PAGES = sorted(GUIDE.glob("*.md"))
IMAGE_BYTES = 40_000
KINDS = {"imp": LotteryConfig, "train": TrainConfig, "compare": CompareConfig, "hybrid": HybridConfig}

page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in; what examples register and import goes away again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(criteria, "_items", dict(criteria._items))
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@page
def test_examples_run(page: Path, desk: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "guide"}
    for language, code in blocks(page):
        if (name := re.match(r"# ([\w-]+\.(?:py|yaml))\n", code)) is not None:
            (desk / name[1]).write_text(code)
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(code, f"{page.name}: {code.splitlines()[0]}", "exec"), namespace)
            for said in re.findall(r"^ *print\(.*\)  # (.*)$", code, flags=re.M):
                for part in said.split("..."):
                    assert part.strip() in printed.getvalue(), f"{page.name}: {said!r} is not what is printed"
        for arguments in commands(code) if language in ("sh", "shell") else ():
            if ">" in arguments:
                *arguments, _, file = arguments
                (desk / file).write_text(CliRunner().invoke(app, arguments).stdout)
            _read(arguments)
            if language == "sh":
                result = CliRunner().invoke(app, arguments)
                assert result.exit_code == 0, f"{arguments}: {result.output}"


def _read(arguments: list[str]) -> None:
    """Options and config as far as they can be read without running anything; raises where they cannot."""
    name, *rest = arguments
    context = get_command(app).commands[name].make_context(name, list(rest))  # type: ignore[attr-defined]
    kind = KINDS.get(name)
    if kind is not None:
        read_config(context.params["config"], kind, context.params["set_"] or [])


@page
def test_pages_are_short(page: Path) -> None:
    assert len(page.read_text().splitlines()) < 220


@pytest.mark.parametrize(
    ("name", "registry"),
    [("criteria", criteria), ("structures", structures), ("distributions", distributions), ("schedules", schedules)],
)
def test_everything_registered_is_described(name: str, registry: Any) -> None:
    """In a table's first cell, or in bold at the head of a paragraph."""
    text = (GUIDE / f"{name}.md").read_text()
    described = set(re.findall(r"^(?:\| |\*\*)`([^`]+)`", text, flags=re.M))
    assert set(registry) <= described, f"{name}.md says nothing about {sorted(set(registry) - described)}"


def test_the_index_names_every_page() -> None:
    index = (GUIDE / "README.md").read_text()
    missing = [p.name for p in PAGES if p.name != "README.md" and f"]({p.name})" not in index]
    assert not missing
    assert "](docs/guide/README.md)" in (ROOT / "README.md").read_text()
    assert re.search(r"^guide-figures:", (ROOT / "Makefile").read_text(), flags=re.M)


def test_figures_are_drawn(tmp_path: Path) -> None:
    runpy.run_path(str(GUIDE / "draw_structures.py"))["main"](tmp_path)
    drawn = {path.name for path in tmp_path.glob("*.png")}
    photographed = set(runpy.run_path(str(GUIDE / "photograph_report.py"))["SEEN"])
    shown = {Path(name).name for p in PAGES for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", p.read_text())}
    assert drawn | photographed == shown
    assert len(drawn) >= len(structures)
    for name in drawn:
        assert (tmp_path / name).stat().st_size < IMAGE_BYTES
        assert (ROOT / "docs" / "images" / name).stat().st_size < IMAGE_BYTES


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, code) of the page's fenced blocks, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), flags=re.M | re.S)


def commands(code: str) -> list[list[str]]:
    """The arguments of every `tombola ...` line of a shell block."""
    lines = [shlex.split(line, comments=True) for line in code.replace("\\\n", " ").splitlines()]
    assert all(line[0] == "tombola" for line in lines if line)
    return [line[1:] for line in lines if line]
