"""The contract that every registered criterion, structure, budget and schedule must pass, alone and together."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tombola.pruning import Masks, PerLayerRates, budgets, criteria, prunable_parameters, prune, schedules, structures
from tombola.pruning.criteria import ScoringContext


def conv_net() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 9), nn.ReLU(), nn.Linear(9, 3)
    )


def linear_net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(13, 7), nn.ReLU(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 2))


def tied_values(model: nn.Module) -> nn.Module:
    """The same network with weights of only three distinct magnitudes, some of them 0."""
    with torch.no_grad():
        for parameter in prunable_parameters(model).values():
            parameter.copy_(torch.randint(-2, 3, parameter.shape).float())
    return model


MODELS = {"linear": linear_net, "conv": conv_net, "ties": lambda: tied_values(linear_net())}
GLOBAL_BUDGETS = [name for name in budgets if name != "rates"]


def budget_call(name: str) -> dict:
    """How a budget is asked for half of the weights, or of each layer's."""
    return {"budget": PerLayerRates(0.5)} if name == "rates" else {"budget": name, "sparsity": 0.5}


@pytest.mark.parametrize("criterion", criteria)
@pytest.mark.parametrize("model", MODELS)
class TestCriteria:
    def test_scores_have_the_shapes_of_the_weights_and_are_numbers(self, criterion: str, model: str) -> None:
        network = MODELS[model]()
        scores = criteria.get(criterion)(network, ScoringContext())
        parameters = prunable_parameters(network)
        assert list(scores) == list(parameters)
        for name, parameter in parameters.items():
            assert scores[name].shape == parameter.shape
            assert not scores[name].requires_grad
            assert torch.isfinite(scores[name]).all()

    def test_scores_repeat_and_leave_the_model_alone(self, criterion: str, model: str) -> None:
        network = MODELS[model]()
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        rng = torch.get_rng_state()
        first = criteria.get(criterion)(network, ScoringContext(seed=5))
        again = criteria.get(criterion)(network, ScoringContext(seed=5))
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
        assert torch.equal(rng, torch.get_rng_state())
        assert all(
            score.untyped_storage().data_ptr() != parameter.untyped_storage().data_ptr()
            for score, parameter in zip(first.values(), prunable_parameters(network).values(), strict=True)
        )


@pytest.mark.parametrize("structure", structures)
@pytest.mark.parametrize("shape", [(6, 4), (4, 3, 3, 3), (5, 2, 3)])
class TestStructures:
    def test_pool_alive_and_spread_agree_on_the_units(self, structure: str, shape: tuple[int, ...]) -> None:
        unit = structures.get(structure)
        count = unit.units(torch.Size(shape))
        scores = torch.rand(shape)
        assert unit.pool(scores).shape == (count,)
        assert unit.alive(torch.ones(shape, dtype=torch.bool)).all()
        assert not unit.alive(torch.zeros(shape, dtype=torch.bool)).any()
        for position in {0, count // 2, count - 1}:
            chosen = torch.zeros(count, dtype=torch.bool)
            chosen[position] = True
            mask = unit.spread(chosen, torch.Size(shape))
            assert mask.shape == shape
            assert mask.dtype == torch.bool
            assert torch.equal(unit.alive(mask), chosen)


@pytest.mark.parametrize(
    ("model", "criterion", "structure", "budget"), list(itertools.product(MODELS, criteria, structures, budgets))
)
class TestEveryCombination:
    def test_prunes_exactly_purely_and_nested(self, model: str, criterion: str, structure: str, budget: str) -> None:
        network = MODELS[model]()
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        options = {"criterion": criterion, "structure": structure, **budget_call(budget)}
        masks = prune(network, **options)
        assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
        assert list(masks) == list(prunable_parameters(network))
        assert masks == prune(network, **options)  # the same every time
        assert all(mask.kept >= 1 for mask in masks.values())
        if budget != "rates":
            assert masks.total - masks.kept == round(0.5 * masks.total)
            options["sparsity"] = 0.75
        again = prune(network, masks=masks, **options)
        assert again <= masks
        assert again.kept < masks.kept


@pytest.mark.parametrize("schedule", schedules)
@given(target=st.floats(0, 0.999), start=st.floats(0, 0.999), rounds=st.integers(1, 40))
@settings(max_examples=60)
def test_schedules_never_fall_and_end_on_the_target_itself(
    schedule: str, target: float, start: float, rounds: int
) -> None:
    start = min(start, target)
    sparsities = schedules.get(schedule)(target, rounds, start)
    assert len(sparsities) == rounds
    assert sparsities[-1] == target
    steps = [start, *sparsities]
    assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(steps))


@pytest.mark.parametrize("budget", GLOBAL_BUDGETS)
@pytest.mark.parametrize("criterion", criteria)
@given(sparsity=st.floats(0, 0.93), further=st.floats(0, 0.03), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_exactly_round_s_n_go_at_any_sparsity(
    budget: str, criterion: str, sparsity: float, further: float, seed: int
) -> None:
    network = tied_values(linear_net()) if seed % 2 else linear_net()
    masks = prune(network, sparsity, criterion=criterion, budget=budget, seed=seed)
    assert masks.total - masks.kept == round(sparsity * masks.total)
    more = prune(network, sparsity + further, criterion=criterion, budget=budget, masks=masks, seed=seed + 1)
    assert more.total - more.kept == round((sparsity + further) * more.total)
    assert more <= masks


def test_masks_of_all_models_are_full_before_pruning() -> None:
    for make in MODELS.values():
        masks = Masks.full(make())
        assert masks.kept == masks.total
