"""The whole study as its users meet it: from Python and the command line, in a folder of the names that they know."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from stress_nets import NAMED, BeginShortWorker, Evaluated, assert_same, journals_of_run, rows_of_run

import forked
from finished_runs import files_of, invoke, one_line
from said import json_of
from tombola.runs import executors
from tombola.runs.rows import rows_of
from tombola.studies.stress.living import life
from tombola.studies.stress.schema import CHECKS

OF_A_RUN = {"config.yaml", "manifest.json", "rows.jsonl", "rows.checks", "finished.json", "lock", "report.html"}
COMPARED = {
    "recovery_rate_comparison",
    "forgetting_rate_comparison",
    "performance_comparison",
    "heatmaps",
    "plasticity",
}
OF_A_CELL = {
    *("entropy_tracking/entropy_journal.jsonl", "entropy_tracking/entropy_journal_summary.md"),
    *("entropy_tracking/visualizations/eeg.png", "entropy_tracking/visualizations/entropy_heatmap.png"),
    *("function_tracking/function_history.json", "function_tracking/function.png", "metrics_history.json"),
    *("visualizations/radar.png", "visualizations/time_series.png"),
}
CELLS = ("dense_0", "entropy_0.4", "gradual_0")


@pytest.fixture
def copied(evaluated: Evaluated, tmp_path: Path) -> Path:
    return Path(shutil.copytree(evaluated.folder, tmp_path / "out"))


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would train fails."""
    monkeypatch.setattr(life, "_unit", lambda *_: pytest.fail("trained again"))


def test_every_file_by_its_name(evaluated: Evaluated) -> None:
    expected = OF_A_RUN | {*NAMED} | {f"diverse_comparison/{name}.png" for name in COMPARED}
    expected |= {f"diverse_{cell}/{name}" for cell in CELLS for name in OF_A_CELL}
    assert files_of(evaluated.folder).keys() == expected
    assert not list(evaluated.folder.rglob("checkpoints"))


def test_what_python_is_given_is_what_the_files_hold(evaluated: Evaluated) -> None:
    result = evaluated.result
    assert result == json.loads((evaluated.folder / "pruning_stress_results.json").read_text())
    assert list(result["pruning_results"]) == ["dense", "gradual", "entropy_0.4"]
    cell = result["pruning_results"]["entropy_0.4"]
    assert math.isfinite(cell["avg_recovery_rate"])
    for group in result["pruning_results"].values():
        for name, entry in group["estimates"].items():
            assert group[name] == entry["mean"]
            assert (entry["mean"] is None) <= bool(entry["reason"])
    lives = json.loads((evaluated.folder / "experiment_summaries.json").read_text())
    assert [one["strategy"] for one in lives] == ["dense", "gradual", "entropy"]
    assert all(len(one["scores_nats"]) == len(one["phases"]) + 1 == 5 for one in lives)


def test_rows_are_whole_and_every_self_check_holds(evaluated: Evaluated) -> None:
    rows = rows_of_run(evaluated.folder)
    assert Counter((row["strategy"], row["unit"]) for row in rows if row["kind"] == "pruned") == {
        (name, 0): 1 for name in ("dense", "gradual", "entropy")
    }
    assert {row["unit"] for row in rows if row["strategy"] == "entropy"} == set(range(7))
    found = [(name, row[name]) for row in rows for name in CHECKS if name in row]
    assert {name for name, _ in found} == set(CHECKS)
    assert all(value in (True, None) for _, value in found)
    assert all(0 <= row["entropy"] <= 1 for row in rows_of(rows, kind="state"))
    lines = [line for journal in journals_of_run(evaluated.folder).values() for line in journal]
    assert len(lines) == 3 * 16 * 8  # cells, steps, heads
    assert all(0 <= line["entropy"] <= 1 for line in lines)


@pytest.mark.usefixtures("untrained")
def test_a_finished_study_is_shown_at_once(evaluated: Evaluated, copied: Path) -> None:
    before = files_of(copied)
    shown = evaluated.command(copied)
    assert one_line(shown) is None
    assert invoke("show", copied).stdout == shown.stdout
    assert "plasticity" in shown.stdout
    listed = invoke("list", "--out", copied.parent)
    assert "1 of 1 seeds" in " ".join(listed.stdout.split()) or "finished" in listed.stdout
    assert files_of(copied) == before
    assert one_line(invoke("report", copied)) is None
    assert files_of(copied).keys() == before.keys()
    assert (copied / "rows.jsonl").read_bytes() == before["rows.jsonl"]


@pytest.mark.usefixtures("untrained")
def test_for_a_program(evaluated: Evaluated, copied: Path) -> None:
    said = json_of(evaluated.command(copied, "--json"))
    assert said["kind"] == "stress"
    assert Path(said["folder"]) == copied.resolve()
    assert said["table"]
    assert json_of(invoke("show", copied, "--json"))["table"] == said["table"]


def test_more_seeds_extend_it(evaluated: Evaluated, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By two workers, who live the new networks alone; asked for fewer seeds later it still has all."""
    first = (copied / "rows.jsonl").read_bytes()
    monkeypatch.setattr(executors, "_CONTEXT", forked.FORKS)
    monkeypatch.setattr(executors, "_begin_worker", BeginShortWorker())
    extended = evaluated.command(copied, "--seeds", 2, "--workers", 2)
    assert one_line(extended) is None
    assert (copied / "rows.jsonl").read_bytes().startswith(first)
    assert "42 units to run, 21 of them finished earlier" in extended.stderr
    kinds = [Counter(row["kind"] for row in rows_of_run(copied) if row["seed"] == seed) for seed in (0, 1)]
    assert kinds[0] == kinds[1]
    journals = journals_of_run(copied)
    assert all(journals[name][: len(lines)] == lines for name, lines in journals_of_run(evaluated.folder).items())
    assert all({line["meta_seed"] for line in lines} == {0, 1} for lines in journals.values())
    monkeypatch.setattr(life, "_unit", lambda *_: pytest.fail("trained again"))
    asked_for_one = evaluated.command(copied)
    assert one_line(asked_for_one) is None
    assert "Asked for 1 replicates; the run has 2" in asked_for_one.stderr
    assert asked_for_one.stdout == extended.stdout


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--levels", "0.5"), "levels"),
        (("--seed", 7, "--epochs", 1), "epochs, seed"),
        (("--no_entropy", "--set", "batch_size=4"), "batch_size, entropy"),
    ],
)
def test_another_config_in_its_folder_is_refused(
    more: tuple[object, ...], named: str, evaluated: Evaluated, copied: Path
) -> None:
    before = files_of(copied)
    said = str(one_line(evaluated.command(copied, *more)))
    assert f"(other {named})" in said
    assert "--output_dir" in said
    assert files_of(copied) == before


@pytest.mark.usefixtures("untrained")
def test_folders_of_others_are_refused_and_left_as_they_are(evaluated: Evaluated, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("mine")
    (tmp_path / "link").symlink_to(evaluated.folder, target_is_directory=True)
    (tmp_path / "file").write_text("mine")
    for name, said in (("theirs", "holds files of something else"), ("link", "is a link"), ("file", "")):
        before = files_of(tmp_path)
        assert said in str(one_line(evaluated.command(tmp_path / name)))
        assert files_of(tmp_path) == before


@pytest.mark.usefixtures("untrained")
def test_a_plan_writes_nothing(evaluated: Evaluated, tmp_path: Path) -> None:
    planned = evaluated.command(tmp_path / "out", "--dry-run", "--seeds", 2)
    assert "6 networks, each of 4 phases of about 4 steps: about" in planned.stdout
    assert json_of(evaluated.command(tmp_path / "out", "--dry-run", "--json"))["verdict"]["networks"] == 3
    assert not list(tmp_path.iterdir())


CELL = "diverse_entropy_0.4"
MENDED = {"pruning_stress_results.json": "flipped", "report.html": "cut", f"{CELL}/metrics_history.json": "gone"}
JOURNAL = f"{CELL}/entropy_tracking/entropy_journal.jsonl"
REFUSED = [("manifest.json", "gone"), ("manifest.json", "flipped"), (JOURNAL, "gone"), (JOURNAL, "cut")]


def damage(folder: Path, name: str, how: str) -> None:
    content = (folder / name).read_bytes()
    half = len(content) // 2
    if how == "gone":
        (folder / name).unlink()
    else:
        flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        (folder / name).write_bytes(flipped if how == "flipped" else content[:half])


@pytest.mark.usefixtures("untrained")
def test_what_is_made_of_rows_is_made_anew(evaluated: Evaluated, copied: Path) -> None:
    for name, how in MENDED.items():
        damage(copied, name, how)
    damaged = files_of(copied)
    assert one_line(invoke("show", copied)) is not None
    assert files_of(copied) == damaged
    assert one_line(evaluated.command(copied)) is None
    assert_same(copied, evaluated.folder)
    for name in MENDED:
        assert files_of(copied)[name] == files_of(evaluated.folder)[name], name


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(("name", "how"), [*REFUSED, ("config.yaml", "flipped"), ("rows.jsonl", "flipped")])
def test_other_damage_is_refused_in_one_line(name: str, how: str, evaluated: Evaluated, copied: Path) -> None:
    damage(copied, name, how)
    damaged = files_of(copied)
    for said in (invoke("show", copied), evaluated.command(copied)):
        assert one_line(said) is not None
        assert files_of(copied) == damaged


def test_rows_that_are_gone_are_lived_again(evaluated: Evaluated, copied: Path) -> None:
    table = copied / "rows.jsonl"
    table.write_bytes(b"".join(table.read_bytes().splitlines(keepends=True)[:-1]))  # the last unit is torn
    before = files_of(copied)
    assert "rows.jsonl" in str(one_line(invoke("show", copied)))
    assert files_of(copied) == before
    assert one_line(evaluated.command(copied)) is None
    assert_same(copied, evaluated.folder)


def refused(*arguments: object) -> str:
    """What the command says, in one line, of what it refuses."""
    return str(one_line(invoke("stress", *arguments, "--workers", 1)))


def test_what_is_wrong_with_tasks_is_said_in_one_line(evaluated: Evaluated, tmp_path: Path) -> None:
    path, out = tmp_path / "tasks.jsonl", tmp_path / "out"
    good: list[dict[str, Any]] = [{"task": "mine", "prompt": f"{at}:", "completion": "x"} for at in range(60)]
    for bad, said in (
        ("{", "tasks.jsonl, line 61: is no JSON"),
        (json.dumps({**good[0], "task": "../../x"}), "tasks.jsonl, line 61: a task's name is"),
        (json.dumps({**good[0], "task": "x\x1b[2J"}), "tasks.jsonl, line 61: a task's name is"),
    ):
        path.write_text("\n".join([*map(json.dumps, good), bad]))
        line = refused("--model", evaluated.model, "--tasks", path, "--output_dir", out)
        assert said in line
        assert "\x1b" not in line
    assert "cannot read" in refused("--model", evaluated.model, "--tasks", tmp_path / "none", "--output_dir", out)
    assert not out.exists()
