"""One layer at a time: exactly the units asked for, scored by prune's own masks, and what follows from that."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from small_models import invoke, make_parent, one_line
from tombola import PerLayerRates, prune, sensitivity
from tombola.compression.sensitivity import Point, Sensitivity
from tombola.data import DataConfig, load_data
from tombola.errors import PruningError
from tombola.models import ModelSpec, build, load_model
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks
from tombola.pruning.distributions import make_distribution
from tombola.training import Classification
from tombola.training.task import ACCURACY

DIGITS = load_data(DataConfig(name="digits"), 0)


def network() -> torch.nn.Module:
    return build(ModelSpec(input_shape=(1, 8, 8), classes=10, seed=0, widths=(20, 10)))


@pytest.mark.parametrize(
    ("criterion", "structure"), [("magnitude", "weight"), ("taylor", "neuron"), ("wanda", "weight")]
)
def test_a_point_is_the_score_under_masks_of_prune(criterion: str, structure: str) -> None:
    model, task = network(), Classification(DIGITS)
    before = content_sha256(model.state_dict())
    found = sensitivity(model, DIGITS, criterion=criterion, structure=structure, sparsities=(0.5,), seed=3)
    assert content_sha256(model.state_dict()) == before
    assert found.before == pytest.approx(100 * task.scores(model, "validation").accuracy)
    for point in found.points:
        masks = prune(
            model,
            criterion=criterion,
            structure=structure,
            distribution=PerLayerRates(0.0, {point.layer: 0.5}),
            batches=task.scoring(64, 16, 3),
        )
        assert [name for name, mask in masks.items() if mask.kept < mask.total] == [point.layer]
        masks.apply_(pruned := network())
        assert point.score == pytest.approx(100 * task.scores(pruned, "validation").accuracy)
        assert point.drop == pytest.approx(found.before - point.score)
    assert ("output.weight" in found.layers) == (structure == "weight")  # classes stay


def test_what_is_removed_stays_and_is_not_counted() -> None:
    model = network()
    masks = prune(model, 0.5)
    found = sensitivity(model, DIGITS, masks=masks, sparsities=(0.5,))
    assert {point.layer: point.units for point in found.points} == {name: mask.kept for name, mask in masks.items()}


POINTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.floats(0.01, 0.99), st.floats(-5, 50)), unique_by=lambda point: point[:2]
)


@given(POINTS, st.floats(0, 10))
def test_no_point_up_to_what_a_layer_may_lose_drops_more_and_the_next_does(
    drawn: list[tuple[str, float, float]], allowed: float
) -> None:
    points = tuple(Point(layer, sparsity, 100, round(100 * sparsity), 0.0, drop) for layer, sparsity, drop in drawn)
    found = Sensitivity(ACCURACY, 0.0, points)
    for layer, limit in found.within(allowed).items():
        assert all(point.drop <= allowed for point in found.curve(layer) if point.sparsity <= limit)
        above = [point for point in found.curve(layer) if point.sparsity > limit]
        assert not above or above[0].drop > allowed


@pytest.mark.parametrize("sparsities", [(), (0.0,), (1.0,), (float("nan"),), (0.5, 2.0)])
def test_sparsities_that_are_none(sparsities: tuple[float, ...]) -> None:
    with pytest.raises(PruningError, match="give fractions between 0 and 1"):
        sensitivity(network(), DIGITS, sparsities=sparsities)


def test_a_structure_that_no_layer_has() -> None:
    with pytest.raises(PruningError, match="no layer of the model has units of the structure 'filter'"):
        sensitivity(network(), DIGITS, structure="filter")


def test_the_command_says_a_distribution_that_prune_takes(tmp_path: Path) -> None:
    parent = make_parent(tmp_path / "runs").folder
    asked = ("sensitivity", parent, "--sparsity", 0.3, "--sparsity", 0.6, "--max-drop", "5%")
    said = invoke(*asked, "--out", tmp_path / "found")
    assert said.exit_code == 0, said.output
    with (tmp_path / "found" / "sensitivity.csv").open() as file:
        rows = list(csv.DictReader(file))
    model, _, masks = load_model(parent)
    assert {row["layer"] for row in rows} == set((masks or Masks.full(model)).keys())
    assert (tmp_path / "found" / "report.html").exists()
    text = said.stdout.rstrip().rpartition("--distribution ")[2]
    rates = make_distribution(text)
    content = json.loads(invoke(*asked, "--json", "-q").stdout)
    assert {name.removesuffix(".weight"): rate for name, rate in content["verdict"]["within"].items()} == rates.layers
    one_line(invoke(*asked, "--out", tmp_path / "found"), "not an empty folder")
    pruned = invoke("prune", parent, "--distribution", text, "--finetune", "0it", "--out", tmp_path / "child")
    assert pruned.exit_code == 0, pruned.output
