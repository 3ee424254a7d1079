"""FLOPs are counted: against hand counts, and without a trace left on the model."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tombola.compression.cost import Flops, count_flops
from tombola.models import ModelSpec, build
from tombola.pruning import Mask, Masks, prunable_parameters

LENET = build(ModelSpec(input_shape=(1, 28, 28), classes=10, seed=0))


def _random_masks(model: nn.Module, density: float, seed: int = 0) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    weights = prunable_parameters(model)
    return Masks({name: Mask(torch.rand(w.shape, generator=generator) < density) for name, w in weights.items()})


def test_lenet_costs_two_flops_a_weight() -> None:
    assert count_flops(LENET, (1, 28, 28), Masks.full(LENET)) == Flops(2 * 266_200, 2 * 266_200)


@given(density=st.floats(0, 1), seed=st.integers(0, 1_000))
@settings(deadline=None, max_examples=15)
def test_a_fully_connected_network_costs_two_flops_a_kept_weight(density: float, seed: int) -> None:
    masks = _random_masks(LENET, density, seed)
    assert count_flops(LENET, (1, 28, 28), masks) == Flops(2 * 266_200, 2 * masks.kept)


class SmallNet(nn.Module):
    """Nested modules, a stride, groups, a normalisation and a dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),  # 3×10×10 -> 8×10×10
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4, bias=False),  # -> 8×5×5
            nn.Dropout(0.5),
        )
        self.head = nn.Linear(200, 7)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(inputs).flatten(1))


HAND = {  # 2 × output positions × weights
    "features.0.weight": 2 * 100 * (8 * 3 * 9),
    "features.3.weight": 2 * 25 * (8 * 2 * 9),
    "head.weight": 2 * (200 * 7),
}


def test_a_convolutional_network_costs_what_the_hand_counts() -> None:
    model = SmallNet()
    assert count_flops(model, (3, 10, 10), Masks.full(model)) == Flops(sum(HAND.values()), sum(HAND.values()))
    masks = _random_masks(model, 0.4)
    effective = sum(HAND[name] * masks[name].kept / masks[name].total for name in masks)
    assert count_flops(model, (3, 10, 10), masks).effective == round(effective)


def test_a_single_layer_is_a_model_too() -> None:
    model = nn.Linear(4, 3)
    masks = Masks({"weight": Mask(torch.eye(3, 4, dtype=torch.bool))})
    assert count_flops(model, (4,), masks) == Flops(24, 6)


def test_a_weight_used_twice_costs_twice() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    masks = Masks({"0.weight": Mask(torch.eye(4, dtype=torch.bool))})
    assert count_flops(model, (4,), masks) == Flops(64, 16)


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_the_model_as_it_was(training: bool) -> None:
    model = SmallNet().train(training)
    model.features[1].train(not training)  # a frozen part keeps its own mode
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    random_state = torch.get_rng_state()
    count_flops(model, (3, 10, 10), Masks.full(model))
    with pytest.raises(RuntimeError):
        count_flops(model, (3, 9, 100), Masks.full(model))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
