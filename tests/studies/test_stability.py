"""Stability: instability along a line, on made-up lines and on a small run."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sealing import retell, unsealed
from small_models import invoke
from small_study import SMALL_STUDY, run_lottery
from tombola.errors import ConfigError, RunFolderError, StorageError
from tombola.models.tensors import content_sha256
from tombola.reports.intervals import Estimate
from tombola.runs.configs import validate
from tombola.runs.inventory import findings
from tombola.runs.rows import rows_of
from tombola.studies.base.opened import refuse_changes, remake_report
from tombola.studies.lottery.compare import compare_runs
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.stabilities import POINTS, stored_stabilities
from tombola.studies.lottery.stability import instability, interpolated, run_stability
from tombola.studies.lottery.study import open_lottery


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    torch.set_num_threads(1)
    return run_lottery(validate(SMALL_STUDY, LotteryConfig, "small"), tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize(("line", "expected"), [([5.0, 5.0, 5.0], 0.0), ([4.0, 9.0, 6.0], 4.0), ([6.0, 3.0, 4.0], 1.0)])
def test_instability_is_the_highest_error_minus_the_mean_of_the_ends(line: list[float], expected: float) -> None:
    assert instability(line) == expected


def test_interpolation_ends_on_the_networks_to_the_bit_and_is_straight() -> None:
    a, b = ({"w": torch.randn(50), "count": torch.tensor(3)} for _ in range(2))
    assert content_sha256(interpolated(a, b, 0.0)) == content_sha256(a)
    assert content_sha256(interpolated(a, b, 1.0)) == content_sha256(b)
    assert torch.allclose(interpolated(a, b, 0.25)["w"], 0.75 * a["w"] + 0.25 * b["w"], atol=1e-6)
    assert interpolated(a, b, 0.5)["count"] == 3


def test_a_run_is_measured_stored_shown_and_not_measured_again(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    root = result.folder.root
    found = run_stability(root, 1)
    assert len(found.path) == POINTS
    assert found.instability.n == 2
    assert found.ends.mean == pytest.approx((found.path[0].mean + found.path[-1].mean) / 2)  # no batch norm here
    assert found.excess.mean == pytest.approx(found.ends.mean - found.dense.mean)
    dense = [100 * (1 - r["test_accuracy"]) for r in rows_of(result.rows, kind="training", branch="dense")]
    assert found.dense.mean == pytest.approx(sum(dense) / 2)
    assert stored_stabilities(root) == [found]
    monkeypatch.setattr("tombola.studies.lottery.stability.fit", None)
    assert run_stability(root, 1) == found
    assert found.sentence in remake_report(open_lottery(root)).read_text()


def test_copies_from_one_order_would_be_one_network(result: Result) -> None:
    """The data order is what differs: the copies of a replicate are not equal."""
    run_stability(result.folder.root, 2)
    copies = sorted((result.folder.root / "stability").glob("init-round-02-replicate-00-copy-*.safetensors"))
    assert len(copies) == 2
    assert copies[0].read_bytes() != copies[1].read_bytes()


def test_a_killed_analysis_goes_on_with_the_next_copy(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    from tombola.studies.lottery import stability

    calls = []
    original = stability.fit

    def once(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(stability, "fit", once)
    with pytest.raises(KeyboardInterrupt):
        run_stability(result.folder.root, 3, copies=3)
    run_stability(result.folder.root, 3, copies=3)
    assert len(calls) == 1 + 1 + 5  # one done, one killed, the other five of two replicates


def test_what_no_file_keeps_is_as_it_was_for_every_copy_and_every_measurement(tmp_path: Path) -> None:
    """Else a copy began where the one before it had ended, and a kill between the two changed the result."""
    study = {**SMALL_STUDY, "replicates": 1, "controls": [], "model": {"factory": "own_models:Tiring"}}
    study["pruning"] = {"rate": 0.5, "target_density": 0.5}
    root = run_lottery(validate(study, LotteryConfig, "x"), tmp_path).folder.root

    def measured() -> tuple[dict[str, str], Any]:
        found = run_stability(root, 1, factory="own_models:Tiring")
        copies = sorted((root / "stability").glob("*copy*.safetensors"))
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in copies}, found

    whole = measured()
    assert len(set(whole[0].values())) == 2
    for path in (root / "stability").iterdir():  # as after a kill between the two copies
        if "copy-0" not in path.name:
            path.unlink()
    assert measured() == whole


@pytest.mark.parametrize(
    ("index", "copies", "message"), [(9, 2, "rounds 0 to 3"), (-1, 2, "rounds"), (1, 1, "two ends")]
)
def test_refusals(result: Result, index: int, copies: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_stability(result.folder.root, index, copies=copies)


def test_other_data_than_the_runs_are_refused(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    from tombola.studies.lottery import stability

    other = {**result.data, "checksum": "md5:0"}
    monkeypatch.setattr(stability, "data_facts", lambda config, data_dir: other)
    with pytest.raises(RunFolderError, match="begun with data"):
        run_stability(result.folder.root, 1)


def test_dense_errors_are_those_of_the_replicates_measured(tmp_path: Path) -> None:
    """Whatever the order in which workers finished: replicate 0 alone is asked for, its rows come last."""
    two = run_lottery(validate({**SMALL_STUDY, "controls": []}, LotteryConfig, "x"), tmp_path)
    rows = two.folder.rows.read_text().splitlines(keepends=True)
    retell(two.folder, sorted(rows, key=lambda row: '"replicate":0' in row))
    two.folder.write_config(two.config.model_copy(update={"replicates": 1}))
    (dense,) = rows_of(two.rows, kind="training", branch="dense", replicate=0)
    assert run_stability(two.folder.root, 1).dense.mean == pytest.approx(100 * (1 - dense["test_accuracy"]))


def test_a_run_rewound_to_a_step_is_measured_from_that_step_in_round_0_too(tmp_path: Path) -> None:
    """The central question of Frankle et al. 2020: is the dense network stable from iteration k?"""
    study = {**SMALL_STUDY, "replicates": 1, "controls": [], "rewind": ["step:30it", "init"]}
    root = run_lottery(validate(study, LotteryConfig, "x"), tmp_path).folder.root
    late, early = run_stability(root, 0), run_stability(root, 0, mode="init")
    assert late.density == early.density == 1
    assert late.ends != early.ends


def test_a_damaged_result_is_named(result: Result) -> None:
    run_stability(result.folder.root, 1)
    (path,) = (result.folder.root / "stability").glob("init-round-01.json")
    whole = path.read_bytes()
    path.write_text("{}")
    with pytest.raises(StorageError, match=r"init-round-01\.json: damaged"):
        remake_report(open_lottery(result.folder.root))
    path.write_bytes(whole)


def test_runs_are_compared_on_one_page(result: Result, tmp_path: Path) -> None:
    other = run_lottery(
        validate({**SMALL_STUDY, "seed": 1, "replicates": 1, "name": "other"}, LotteryConfig, "x"), tmp_path
    )
    page = compare_runs([result.folder.root, other.folder.root], tmp_path / "both.html").read_text()
    assert "2 runs: small, other" in page
    assert result.verdict.sentence in page
    assert "rowspan='10'>other</th>" in page  # its ten lines
    assert re.search(r"seed</th><td[^>]*>0</td><td[^>]*>1</td>", page)  # what differs


@pytest.mark.parametrize(
    ("low", "high", "stable"), [(0.1, 1.9, True), (2.1, 3.0, False), (1.0, 3.0, None), (None, None, None)]
)
def test_stability_is_said_only_where_the_interval_tells(
    result: Result, low: float | None, high: float | None, stable: bool | None
) -> None:
    found = replace(run_stability(result.folder.root, 1), instability=Estimate(1.5, low, high, 0.1, 3))
    assert found.stable is stable
    assert found.sentence.startswith({True: "Stable", False: "Unstable", None: "Undecided"}[stable])


def test_matching_means_what_the_verdict_means_by_it(result: Result) -> None:
    """Within the run's tolerance, one-sided, at the level of the look; it was 0.2 points at 95 %, two-sided."""
    found = run_stability(result.folder.root, 1)
    assert (found.tolerance, found.confidence) == (result.config.tolerance, result.verdict.dense_confidence)
    near = replace(found, excess=Estimate(0.5, -0.1, 1.1, 0.3, 10), tolerance=1.0, confidence=0.96, fault=None)
    assert near.matching is True
    assert f"matching within {near.tolerance:g} point" in near.sentence
    assert replace(near, tolerance=0.6).matching is None
    assert replace(near, tolerance=0.2).matching is False
    nothing = replace(near, fault="the dense network learned nothing")
    assert nothing.matching is None
    assert nothing.sentence.endswith("Nothing is matched here: the dense network learned nothing.")


def test_a_result_of_an_older_version_is_read_with_the_runs_tolerance(result: Result) -> None:
    root = result.folder.root
    run_stability(root, 1)
    path = root / "stability" / "init-round-01.json"
    content = unsealed(path)
    path.write_text(json.dumps({k: v for k, v in content.items() if k not in ("tolerance", "confidence", "fault")}))
    assert [s.tolerance for s in stored_stabilities(root) if s.round == 1] == [result.config.tolerance]


OWN_CODE = """
from torch import nn

def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def schedule(iteration, total):
    return 1.0
"""
NAMED = {"factory": "theirs:network", "code": ["theirs:schedule"]}


def edited(folder: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "theirs.py").write_text(content)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)


def test_own_code_is_called_where_the_command_names_it_and_nobody_edited_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder from elsewhere must not decide which code runs."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    edited(tmp_path, OWN_CODE, monkeypatch)
    training = SMALL_STUDY["training"] | {"schedule": "theirs:schedule"}
    own = {"model": {"factory": "theirs:network"}, "training": training}
    asked = SMALL_STUDY | own | {"replicates": 1, "pruning": {"densities": [0.5]}, "controls": []}
    root = run_lottery(validate(asked, LotteryConfig, "small"), tmp_path / "runs").folder.root
    edited(tmp_path, "raise RuntimeError('called')", monkeypatch)
    with pytest.raises(ConfigError, match=r"code of its owner \(theirs:schedule\).* add --code theirs:schedule"):
        run_stability(root, 1, factory="theirs:network")
    with pytest.raises(ConfigError, match="add --factory theirs:network"):
        run_stability(root, 1, code=["theirs:schedule"])
    with pytest.raises(ConfigError, match="--code theirs:loss: this run's recipe names theirs:schedule"):
        run_stability(root, 1, factory="theirs:network", code=["theirs:schedule", "theirs:loss"])
    edited(tmp_path, OWN_CODE.replace("return 1.0", "return 0.5"), monkeypatch)
    with pytest.raises(RunFolderError, match="other code of theirs:network, theirs:schedule"):
        run_stability(root, 1, **NAMED)
    edited(tmp_path, OWN_CODE, monkeypatch)
    asked_for = ("--round", 1, "--factory", "theirs:network", "--code", "theirs:schedule", "--workers", 1)
    measured = invoke("stability", root, *asked_for)
    assert measured.exit_code == 0, measured.output


@pytest.mark.parametrize(
    ("name", "found"),
    [("processor_facts", {"maker": "other"}), ("device_facts", {"device": [{"type": "cuda", "name": "A100"}]})],
)
def test_another_processor_or_device_is_refused(
    result: Result, name: str, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tombola.studies.lottery import stability

    monkeypatch.setattr(stability, name, lambda *_: found)
    with pytest.raises(RunFolderError, match=r"begun with (processor|device) .* go on where it was begun"):
        run_stability(result.folder.root, 1)


def test_a_measured_run_stays_finished(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealed, and shown at once without a warning: what is measured of a run is no part of it."""
    root = result.folder.root
    assert invoke("stability", root, "--round", 1, "--workers", 1).exit_code == 0
    monkeypatch.setattr("tombola.studies.lottery.replicate.fit", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refuse_changes(open_lottery(root))
        shown = run_lottery(result.config, root.parent)
    assert shown.verdict == result.verdict
    assert findings(result.folder) == findings(result.folder, quick=True)
    again = invoke("show", root)
    assert again.exit_code == 0
    assert not again.stderr
    (line,) = [line for line in invoke("list", "--out", root.parent).stdout.splitlines() if root.name in line]
    assert result.verdict.outcome in line
    assert line.rstrip().endswith("2 of 2 replicates")
