"""At 80 columns nothing is wider: tables fold or drop columns, sentences wrap at words, paths alone may be longer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner

from finished_runs import KINDS, Runs, invoke
from said import WIDTH, fits
from tombola.cli import app
from tombola.reports.tables import Table
from tombola.reports.terminal import drawn, say

COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(WIDTH))
        return Runs(tmp_path_factory.mktemp("width"))


@pytest.fixture(autouse=True)
def _eighty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command: str) -> None:
    said = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": str(WIDTH)})
    assert said.exit_code == 0
    assert fits(said.stdout), said.stdout
    assert "bool" not in said.stdout
    assert "…" not in said.stdout, "something was cut"


@pytest.mark.parametrize("kind", KINDS)
def test_a_run(kind: str, runs: Runs) -> None:
    shown = invoke("show", runs.folders[kind])
    assert fits(shown.stdout), shown.stdout
    assert fits(runs.made[kind].stderr)
    assert str(runs.folders[kind]) in shown.stdout, "the path is whole"


def test_plans_and_lists(runs: Runs, tmp_path: Path) -> None:
    for kind in ("train", "imp", "compare"):
        planned = invoke(kind, runs.root / f"{kind}.yaml", "--dry-run", "--out", tmp_path)
        assert fits(planned.output), planned.output
    for what in ("criteria", "structures", "distributions", "schedules", "controls", "models", "data"):
        listed = invoke("list", what)
        assert listed.exit_code == 0
        assert fits(listed.stdout), listed.stdout
    assert fits(invoke("configs").stdout)
    measured = invoke("stability", runs.restore("imp"), "--round", 1, "--workers", 1)
    assert fits(measured.output), measured.output


def test_a_list_of_runs(runs: Runs, tmp_path: Path) -> None:
    shutil.copytree(runs.out, tmp_path / "runs")
    (tmp_path / "runs" / runs.folders["train"].name / "config.yaml").unlink()
    (tmp_path / "runs" / f"lottery-{'long' * 9}-0123abcd").mkdir()
    listed = invoke("list", "--out", tmp_path / "runs")
    assert listed.exit_code == 0
    assert fits(listed.stdout), listed.stdout
    for folder in runs.folders.values():
        assert folder.name in listed.stdout, "a name can be copied"


anything = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
WORDS = st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=50), max_size=12).map(" ".join)


@anything
@given(
    st.integers(1, 9).flatmap(
        lambda n: st.tuples(st.lists(st.lists(WORDS, min_size=n, max_size=n), max_size=4), st.integers(0, n))
    )
)
def test_any_table(table_and_left: tuple[list[list[str]], int]) -> None:
    """Whatever is in it; and what is not shown is named."""
    rows, left = table_and_left
    count = len(rows[0]) if rows else 3
    titles = [f"Column {number}" for number in range(count)]
    console = Console(width=WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(drawn(Table(titles, rows), left=left))
    printed = captured.get()
    assert all(cell_len(line) <= WIDTH for line in printed.splitlines())
    assert all(str(number) in printed for number in range(count))


@anything
@given(st.lists(WORDS, max_size=5).map("\n".join))
def test_any_sentence(text: str) -> None:
    """No word is broken or lost."""
    console = Console(width=WIDTH, color_system=None)
    with console.capture() as captured:
        say(console, text)
    assert fits(captured.get())
    assert captured.get().split() == text.split()
