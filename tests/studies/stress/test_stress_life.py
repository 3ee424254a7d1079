"""The life of one network: what its rows say, that masks hold, that it goes on to the bit wherever it was killed."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from stress_nets import small_config

from tombola.errors import ModelError
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.work import Finished, unit_rows
from tombola.studies.stress.cells import CellKey, life_of
from tombola.studies.stress.config import StressConfig, label_of
from tombola.studies.stress.living import looking
from tombola.studies.stress.living.cell import CellSpec
from tombola.studies.stress.living.life import live
from tombola.studies.stress.subjects.networks import open_subject


@pytest.fixture(scope="module", autouse=True)
def _short_probe() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looking, "QUICK_PROBE_STEPS", 2)
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> StressConfig:
    return small_config(tmp_path_factory.mktemp("models"))


def spec_of(config: StressConfig, folder: Path, strategy: str, level: float = 0.0, **others: Any) -> CellSpec:
    model = config.model[0]
    key = CellKey(label_of(model), strategy, level, **others)
    return CellSpec(config, key, model, folder, open_subject(model, True).loaded.sha256)


def lived(spec: CellSpec) -> list[Row]:
    """The rows of a whole life, without what was measured with a clock."""
    live(spec, lambda event: None)
    rows = [row for file in sorted(spec.home.glob("unit-*.json")) for row in unit_rows(file)]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def magnitude(config: StressConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[CellSpec, list[Row]]:
    spec = spec_of(config, tmp_path_factory.mktemp("whole"), "magnitude", 0.4)
    return spec, lived(spec)


def test_rows_of_a_life(config: StressConfig, magnitude: tuple[CellSpec, list[Row]]) -> None:
    _, rows = magnitude
    assert Counter(row["kind"] for row in rows if row["kind"] != "score") == {
        "pruned": 1,
        "phase": 4,
        "alone": 2,
        "probe": 4,
        "state": 3,
        "function": 5,
    }
    assert {row["unit"] for row in rows} == set(range(len(life_of(config, 2))))
    (pruned,) = rows_of(rows, kind="pruned")
    assert pruned["units_removed"] == round(0.4 * 8) == pruned["units_total"] - sum(pruned["kept_by_layer"])
    assert pruned["check_exact"]
    assert pruned["check_changed"]
    assert pruned["parameters_removed"] > 0
    assert pruned["removal_error"] < 1e-5
    assert all(row["check_held"] for row in rows_of(rows, kind="phase"))
    ends = rows_of(rows, kind="score", look="end")
    assert Counter(row["phase"] for row in ends) == dict.fromkeys(range(5), 2)
    assert all(row["change"] == 0 for row in ends if row["phase"] == 0)
    assert [row["visit"] for row in rows_of(rows, kind="phase")] == [1, 1, 2, 2]
    inside = rows_of(rows, kind="score", look="inside")
    assert all(0 < row["step_in_phase"] <= 2 for row in inside)
    assert {row["task"] for row in inside if row["phase"] == 1} == {rows_of(rows, kind="phase")[0]["training"]}
    assert len({row["task"] for row in inside if row["phase"] == 2}) == 2
    last = max(rows, key=lambda row: row["unit"])
    assert (last["step"], last["epochs"]) == (8, 4)
    assert last["tokens"] == sum(row["phase_tokens"] for row in rows_of(rows, kind="phase"))


def test_learning_is_seen_and_the_control_without_interference_is_of_equal_length(
    magnitude: tuple[CellSpec, list[Row]],
) -> None:
    _, rows = magnitude
    for phase in rows_of(rows, kind="phase", visit=1):
        before, after = (
            row
            for row in rows_of(rows, kind="score", look="end", task=phase["training"])
            if row["phase"] in (phase["phase"] - 1, phase["phase"])
        )
        assert after["nats"] < before["nats"]
        (alone,) = rows_of(rows, kind="alone", task=phase["training"])
        assert alone["steps"] == phase["steps"]
        assert alone["nats"] < after["nats"]


def test_the_journal_has_every_head_at_every_step(magnitude: tuple[CellSpec, list[Row]]) -> None:
    spec, rows = magnitude
    lines = [json.loads(line) for file in sorted(spec.home.glob("journal-*")) for line in file.open()]
    assert Counter((line["layer_idx"], line["head_idx"]) for line in lines) == Counter(
        {(layer, head): 8 for layer in range(2) for head in range(4)}
    )
    assert sorted({line["meta_step"] for line in lines}) == list(range(1, 9))
    assert all(0 <= line["entropy"] <= 1 for line in lines)
    (pruned,) = rows_of(rows, kind="pruned")
    for layer, kept in enumerate(pruned["kept_by_layer"]):
        assert len({line["head_idx"] for line in lines if line["layer_idx"] == layer and line["gate_value"]}) == kept


def _killed_after(spec: CellSpec, unit: int) -> None:
    class KilledError(Exception):
        pass

    def killed(event: Any) -> None:
        if isinstance(event, Finished) and event.path == spec.unit(unit):
            raise KilledError

    with pytest.raises(KilledError):
        live(spec, killed)


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_killed_after_any_unit_it_comes_to_the_same_bits(
    config: StressConfig, magnitude: tuple[CellSpec, list[Row]], tmp_path: Path, after: int
) -> None:
    _, rows = magnitude
    spec = spec_of(config, tmp_path, "magnitude", 0.4)

    _killed_after(spec, after)
    assert len(list(spec.home.glob("state-*"))) == 1
    assert lived(spec) == rows
    assert not list(spec.home.glob("state-*"))


def test_torn_files_of_a_killed_life_are_made_anew(
    config: StressConfig, magnitude: tuple[CellSpec, list[Row]], tmp_path: Path
) -> None:
    spec = spec_of(config, tmp_path, "magnitude", 0.4)
    for torn in (spec.unit(2), spec.state(3)):
        _killed_after(spec, 3)
        torn.write_bytes(torn.read_bytes()[:-30])
        assert lived(spec) == magnitude[1]
        shutil.rmtree(spec.home)


def test_dense_has_floors_and_loses_nothing(config: StressConfig, tmp_path: Path) -> None:
    rows = lived(spec_of(config, tmp_path, "dense"))
    (pruned,) = rows_of(rows, kind="pruned")
    assert (pruned["units_removed"], pruned["parameters_removed"], pruned["check_changed"]) == (0, 0, None)
    assert pruned["nats_before"] == pruned["nats_after"]
    assert Counter(row["of"] for row in rows_of(rows, kind="floor")) == {"all_off": 2, "untrained": 2}
    first = rows_of(rows, kind="function", of="network")[0]
    assert (first["kl"], first["top1"], first["flips"]) == (pytest.approx(0, abs=1e-6), 1, 0)


def test_a_gradual_life_differs_from_an_abrupt_one_after_the_first_task(config: StressConfig, tmp_path: Path) -> None:
    dense, gradual = (lived(spec_of(config, tmp_path, name)) for name in ("dense", "gradual"))
    ends = [[row["nats"] for row in rows_of(rows, kind="score", look="end")] for rows in (dense, gradual)]
    assert ends[0][:4] == ends[1][:4]
    assert ends[0][4:] != ends[1][4:]


def test_draws_and_seeds_are_other_networks(config: StressConfig, tmp_path: Path) -> None:
    kinds = [{"draw": 0}, {"draw": 1}, {"seed": 1}]
    found = [lived(spec_of(config, tmp_path, "random", 0.4, **kind)) for kind in kinds]
    nats = [rows_of(rows, kind="pruned")[0]["nats_after"] for rows in found]
    assert len(set(nats)) == 3
    order = [tuple(row["training"] for row in rows_of(rows, kind="phase")) for rows in found]
    assert order[0] == order[1]


@pytest.mark.parametrize("remedy", ["shrink_and_perturb", "reset_dormant"])
def test_remedies_change_what_comes_after_the_first_cycle(
    config: StressConfig, magnitude: tuple[CellSpec, list[Row]], tmp_path: Path, remedy: str
) -> None:
    rows = lived(spec_of(config, tmp_path, "magnitude", 0.4, remedy=remedy))
    same = [row["nats"] for row in rows_of(rows, kind="score") if row["cycle"] < 2]
    assert same == [row["nats"] for row in rows_of(magnitude[1], kind="score") if row["cycle"] < 2]
    assert all(row["check_held"] for row in rows_of(rows, kind="phase"))
    if remedy == "shrink_and_perturb":
        norms = [rows_of(found, kind="state")[-1]["weight_norm"] for found in (rows, magnitude[1])]
        assert norms[0] < norms[1]


def test_neurons_and_equal_layers_and_pruning_in_steps(config: StressConfig, tmp_path: Path) -> None:
    other = config.model_copy(update={"structure": "neuron", "equal": True, "prune_cycles": 2, "cycles": 1})
    rows = lived(spec_of(other, tmp_path, "gradient", 0.5))
    pruned = rows_of(rows, kind="pruned")
    assert [row["kept_by_layer"] for row in pruned] == [[96, 96], [64, 64]]
    assert [row["reached"] for row in pruned] == [0.25, 0.5]
    assert all(row["check_exact"] and row["check_changed"] for row in pruned)
    assert pruned[1]["parameters_removed"] > pruned[0]["parameters_removed"] > 0
    assert all(row["check_held"] for row in rows_of(rows, kind="phase"))


def test_a_model_that_was_replaced_is_refused(config: StressConfig, tmp_path: Path) -> None:
    spec = spec_of(config, tmp_path, "dense")
    with pytest.raises(ModelError, match="was replaced"):
        live(CellSpec(config, spec.key, spec.model, tmp_path, "0" * 64), lambda event: None)


def test_a_life_leaves_the_model_that_was_given_as_it_was(config: StressConfig, tmp_path: Path) -> None:
    subject = open_subject(config.model[0], True)
    before = {name: tensor.clone() for name, tensor in subject.reference.state_dict().items()}
    state = torch.random.get_rng_state()
    subject.fresh(3)
    assert torch.random.get_rng_state().equal(state)
    lived(spec_of(config, tmp_path, "oracle", 0.4))
    assert all(tensor.equal(before[name]) for name, tensor in subject.reference.state_dict().items())
