"""`--json`: one object of one form on stdout, for every command that gives a result; and `--quiet`."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finished_runs import KINDS, Runs, invoke
from said import at
from said import json_of as read
from tombola.cli.listing import LISTINGS
from tombola.reports.intervals import estimate
from tombola.studies.base.output import NO_INTERVAL, NOT_FINITE, Numbers, Output, output

GUIDE = Path(__file__).parent.parent.parent / "docs" / "guide" / "command-line.md"
STUDY = {"imp": "lottery"}


@pytest.fixture(scope="module")
def runs(finished: Runs) -> Runs:
    return finished.restored()


def test_the_guide_names_every_key_and_no_other() -> None:
    chapter = GUIDE.read_text().partition("## For scripts")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in chapter.splitlines() if line.startswith("| `")]
    assert [key for cell in cells for key in re.findall(r"`(\w+)`", cell)] == list(Output.model_fields)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run(kind: str, runs: Runs) -> None:
    shown = read(invoke("show", runs.folders[kind], "--json"))
    assert shown["kind"] == STUDY.get(kind, kind)
    assert shown["folder"] == str(runs.folders[kind])
    assert shown["finished"] is True
    assert shown["outcome"]
    assert shown["table"]
    assert {"report", "rows", "config"} <= shown["paths"].keys()
    again = runs.go_on(kind, "--json", "--quiet")
    assert (read(again), again.stderr) == (shown, "")


def test_what_a_lottery_came_to(runs: Runs) -> None:
    shown = read(invoke("show", runs.folders["imp"], "--json"))
    assert shown["outcome"].startswith(shown["verdict"]["outcome"])
    assert [row["density"] for row in shown["table"]] == [
        1.0,
        0.5,
        0.5,
        pytest.approx(0.3, abs=1e-3),
        pytest.approx(0.3, abs=1e-3),
    ]
    assert {"mean", "low", "high", "sd", "n"} == shown["table"][0]["test_accuracy"].keys()
    assert shown["units"]["test_accuracy"] == "percent"


def test_a_plan(runs: Runs, tmp_path: Path) -> None:
    for kind in ("train", "imp", "compare"):
        planned = read(invoke(kind, runs.root / f"{kind}.yaml", "--dry-run", "--json", "-q", "--out", tmp_path))
        assert planned["kind"] == "plan"
        assert planned["table"]
        assert not Path(planned["folder"]).exists()
    ways = ("--sparsity", 0.5, "--finetune", "6it", "--schedule", "iterative:2", "--out", tmp_path / "child")
    planned = read(invoke("prune", runs.folders["train"], *ways, "--dry-run", "--json", "-q"))
    assert planned["table"][0]["trainings"] == 2
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_a_person_writes_nothing(runs: Runs, tmp_path: Path) -> None:
    said = invoke("train", runs.root / "train.yaml", "--dry-run", "--out", tmp_path)
    assert re.fullmatch(r"a parent: 1 training of at most 8 iterations, about \d+ s\n", said.stdout)
    said = invoke("stability", runs.folders["imp"], "--round", 1, "--copies", 3, "--dry-run", "--workers", 1)
    assert said.stdout.startswith("6 trainings: 3 copies in each of 2 replicates, about ")
    assert not (runs.folders["imp"] / "stability").exists()


def test_a_list(runs: Runs, tmp_path: Path) -> None:
    listed = read(invoke("list", "--out", runs.out, "--json"))
    assert {row["folder"] for row in listed["table"]} == {folder.name for folder in runs.folders.values()}
    assert read(invoke("list", "--out", tmp_path, "--json"))["table"] == []
    assert "digits" in [row["name"] for row in read(invoke("configs", "--json"))["table"]]
    assert read(invoke("configs", "digits", "--json"))["verdict"]["name"] == "digits"


@pytest.mark.parametrize("asked", [("configs",), *(("list", what) for what in LISTINGS)])
def test_keys_of_a_list_are_names_that_stay(asked: tuple[str, ...]) -> None:
    listed = read(invoke(*asked, "--json"))
    assert listed["kind"] == asked[-1]
    assert {"name", "description"} <= listed["table"][0].keys()
    assert all(re.fullmatch("[a-z_]+", key) for row in listed["table"] for key in row)


def test_what_is_made_of_a_run(runs: Runs, tmp_path: Path) -> None:
    ticket = read(invoke("extract", runs.folders["imp"], "--density", 0.5, "--out", tmp_path / "ticket", "--json"))
    assert (ticket["kind"], ticket["table"][0]["index"]) == ("ticket", 1)
    assert read(invoke("report", runs.folders["train"], "--json"))["paths"].keys() == {"report"}
    measured = read(invoke("stability", runs.restore("imp"), "--round", 1, "--workers", 1, "--json", "-q"))
    assert measured["kind"] == "stability"
    assert measured["table"][0]["instability"]["n"] == 2


@pytest.mark.parametrize("arguments", [("show", "nowhere"), ("list", "nothing"), ("imp", "nowhere.yaml", "-q")])
def test_an_error_is_one_line_on_stderr(arguments: tuple[str, ...]) -> None:
    result = invoke(*arguments, "--json")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("error: ")


def test_one_replicate_has_no_interval() -> None:
    said = output("x", Numbers([{"accuracy": estimate([1.0])}], {"a/b": estimate([1.0, 2.0])}))
    assert said.reasons == {f"/table/0/accuracy/{key}": NO_INTERVAL for key in ("low", "high", "sd")}
    assert said.verdict is not None
    assert said.verdict["a/b"]["mean"] == 1.5


SCALARS = st.one_of(
    st.booleans().map(np.bool_), st.floats().map(np.float64), st.floats(width=32).map(np.float32),
    st.integers(-(2**63), 2**63 - 1).map(np.int64), st.integers(0, 255).map(np.uint8),
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_no_number_that_is_none_is_printed(row: dict[str, Any]) -> None:
    """Whatever a study hands over, it is JSON, and what was not finite is null with a reason at its place."""
    said = output("x", Numbers([row]))
    content = json.loads(said.to_json(), parse_constant=pytest.fail)
    for pointer, reason in content["reasons"].items():
        assert at(content, pointer) is None
        assert reason in (NOT_FINITE, NO_INTERVAL)
    assert content["table"] == [swept(row)]  # True == 1, so of what type:
    assert json.dumps(content["table"]) == json.dumps([swept(row)])
    assert sum(reason == NOT_FINITE for reason in content["reasons"].values()) == odd(row)


@pytest.mark.parametrize("value", [object(), 1j, np.complex128(1j), np.zeros(2)])
def test_what_json_has_no_word_for_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="/table/0/a/1 is a "):
        output("x", Numbers([{"a": [0, value]}]))


def test_what_else_a_yaml_file_holds_is_written_out(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("study: train\nseed: !!set {1}\nmodel: !!binary YQ==\n")
    shown = read(invoke("configs", tmp_path / "my.yaml", "--json"))["verdict"]
    assert shown == {"study": "train", "seed": [1], "model": "b'a'"}


def swept(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: swept(part) for key, part in value.items()}
    return [swept(part) for part in value] if isinstance(value, list) else value


def odd(value: Any) -> int:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, dict | list):
        return sum(odd(part) for part in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and not math.isfinite(value)
