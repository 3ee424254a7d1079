"""Other ways through the study: a dead model, difficulty that follows, a search, remedies for neurons, odd names."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from stress_nets import gpt2, rows_of_run, shorten, small_config

from finished_runs import files_of
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.life import run_study
from tombola.studies.base.study import Call
from tombola.studies.stress.cells import CellKey
from tombola.studies.stress.config import StressConfig, label_of
from tombola.studies.stress.living.cell import CellSpec
from tombola.studies.stress.living.life import live
from tombola.studies.stress.outcome.programs import as_json
from tombola.studies.stress.study import Stress
from tombola.studies.stress.subjects import curriculum, protocols
from tombola.studies.stress.subjects.networks import open_subject


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch.setattr)


def results(config: StressConfig, out: Path) -> dict[str, Any]:
    """What the study comes to, for programs: as its file has it."""
    found = as_json(run_study(Stress, config, Call(out)))
    assert found == json.loads((out / "pruning_stress_results.json").read_text())
    return found


@pytest.mark.parametrize("how", ["fresh weights", "no weights"])
def test_a_model_that_learns_nothing_has_no_rates(how: str, tmp_path: Path) -> None:
    config = small_config(tmp_path, strategies=("magnitude",), learning_rate=1e-12)
    model: Any = gpt2()
    if how == "no weights":
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
    else:
        model = type(model)(model.config)  # as an untrained one
    model.save_pretrained(config.model[0])
    found = results(config, tmp_path / "out")
    for name, group in found["pruning_results"].items():
        for rate in RATES:
            assert group[rate] is None, (name, rate)
            assert group["estimates"][rate]["reason"]
        assert all(group[name] is None or abs(group[name]) < 1e-6 for name in ("bwt", "forgetting", "gain"))
        assert group["performance_nats"] > 6
        if how == "no weights":
            assert group["dead"], name
    nulls = [
        (row["kind"], name, row.get(f"{name}_reason"))
        for row in rows_of_run(tmp_path / "out")
        for name in ("flips", "cka", "effective_rank")
        if name in row and row[name] is None
    ]
    assert bool(nulls) == (how == "no weights")
    assert all(reason for *_, reason in nulls)


RATES = ("avg_recovery_rate", "recovery_second", "recovery_alone", "savings", "avg_forgetting_rate", "adaptation_steps")


def lived(config: StressConfig, folder: Path, strategy: str = "dense", level: float = 0.0) -> list[Row]:
    """The rows of one cell."""
    model = config.model[0]
    spec = CellSpec(
        config, CellKey(label_of(model), strategy, level), model, folder, open_subject(model, True).loaded.sha256
    )
    live(spec, lambda event: None)
    units = sorted(spec.home.glob("unit-*.json"))
    return [row for path in units for row in json.loads(path.read_text())["rows"]]


def test_difficulty_follows_and_scores_stay_comparable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is learned becomes harder; what is looked at are the same items as without."""
    own = {"tasks": None, "protocol": "memory", "cycles": 3, "function": False, "entropy": False}
    monkeypatch.setitem(protocols.PROTOCOLS, "memory", ("recall",))
    for name, fraction in {"UP": 0.0, "DOWN": -1.0}.items():  # any network is good enough
        monkeypatch.setattr(curriculum, name, fraction)
    config = small_config(tmp_path, **own)
    as_ever = lived(config, tmp_path / "plain")
    adaptive = lived(config.model_copy(update={"adaptive": True}), tmp_path / "adaptive")
    assert [row["difficulty"] for row in rows_of(as_ever, kind="phase")] == [1, 1, 1]
    assert [row["difficulty"] for row in rows_of(adaptive, kind="phase")] == [1, 2, 3]
    tokens = [row["phase_tokens"] for row in rows_of(adaptive, kind="phase")]
    assert tokens[0] < tokens[1] < tokens[2]
    for one, other in zip(*(rows_of(rows, kind="score") for rows in (as_ever, adaptive)), strict=True):
        assert [one[name] for name in ("phase", "task", "look", "items")] == [
            other[name] for name in ("phase", "task", "look", "items")
        ]
        if one["cycle"] < 2:  # the same life until then
            assert one["nats"] == other["nats"]


def test_a_search_spends_what_it_may_and_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: dict[str, Any] = {"strategies": ("magnitude",), "levels": (0.3, 0.5), "search": 2, "cycles": 1}
    config = small_config(tmp_path, **ways, function=False)
    found = results(config, tmp_path / "whole")
    rows = rows_of_run(tmp_path / "whole")
    pulls = [row for row in rows if row["kind"] == "pull"]
    assert Counter(row["controller"] for row in pulls) == {"bandit": 2, "random": 2}
    assert {row["level"] for row in pulls if row["controller"] == "bandit"} == {0.3, 0.5}
    for pull in pulls:
        probes = rows_of(rows, kind="probe", of="network", level=pull["level"], seed=pull["seed"])
        assert pull["reward"] == -max(probes, key=lambda row: row["unit"])["nats"]
    assert {"dense", *(f"magnitude_{row['level']:g}" for row in pulls)} == set(found["pruning_results"])

    class KilledError(Exception):
        pass

    study_live = Stress._live
    for after in (1, 2):  # within what the bandit pulls

        def killed(self: Any, work: Any, keys: Any, after: int = after) -> None:
            if sum(row["kind"] == "pull" for row in work.rows) == after:
                raise KilledError
            study_live(self, work, keys)

        with monkeypatch.context() as patch:
            patch.setattr(Stress, "_live", killed)
            with pytest.raises(KilledError):
                run_study(Stress, config, Call(tmp_path / "killed"))
    assert results(config, tmp_path / "killed") == found
    assert rows_of_run(tmp_path / "killed") == rows


def test_neurons_and_a_remedy_without_journals_under_an_odd_name(tmp_path: Path) -> None:
    """In the folder of the model itself, whose name no file may have."""
    named = tmp_path / "mÿ mödel; $(x) #1"
    config = small_config(tmp_path)
    Path(config.model[0]).rename(named)
    ways: dict[str, Any] = {"structure": "neuron", "strategies": ("magnitude",), "entropy": False, "function": False}
    remedies = ("none", "shrink_and_perturb")
    asked = config.model_copy(update={**ways, "model": (str(named),), "remedies": remedies})
    found = results(asked, tmp_path / "out")
    assert list(found["pruning_results"]) == [
        *("dense", "dense+shrink_and_perturb", "gradual"),
        *("magnitude_0.4", "magnitude_0.4+shrink_and_perturb"),
    ]
    treated = found["pruning_results"]["magnitude_0.4+shrink_and_perturb"]
    assert treated["minus_untreated"]["probe_nats"]["mean"] is not None
    assert treated["probe_start"] == found["pruning_results"]["magnitude_0.4"]["probe_start"]
    assert treated["probe_nats"] != found["pruning_results"]["magnitude_0.4"]["probe_nats"]
    names = files_of(tmp_path / "out")
    assert not [name for name in names if "tracking" in name]
    assert all(re.fullmatch(r"[\w.,/-]+", name, re.ASCII) for name in names)
    (pruned,) = rows_of(rows_of_run(tmp_path / "out"), kind="pruned", strategy="magnitude", remedy="none")
    assert (pruned["units_total"], pruned["units_removed"]) == (256, round(0.4 * 256))
    assert {row["model"] for row in rows_of_run(tmp_path / "out")} == {label_of(str(named))}
    named.rename(tmp_path / "elsewhere")
    assert results(asked, tmp_path / "out") == found  # what is finished needs no model


def test_pruned_in_more_steps_than_there_are_heads_to_go(tmp_path: Path) -> None:
    """Steps that remove nothing new say nothing of what changed."""
    ways: dict[str, Any] = {"strategies": ("magnitude",), "levels": (0.2,), "prune_cycles": 3, "cycles": 1}
    config = small_config(tmp_path, **ways, function=False, entropy=False)
    pruned = rows_of(lived(config, tmp_path / "out", "magnitude", 0.2), kind="pruned")
    assert [row["units_removed"] for row in pruned] == [1, 1, 2]
    assert [row["check_changed"] for row in pruned] == [True, None, True]
    assert all(row["check_exact"] for row in pruned)
