"""FLOPs and bytes are counted: against hand counts, and without a trace left on the model."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tombola.compression.cost import Flops, Size, count_flops, count_size
from tombola.models import ModelSpec, build
from tombola.models.tensors import save_tensors
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


class TestSize:
    def test_of_a_dense_model(self) -> None:
        size = count_size(LENET, Masks.full(LENET))
        assert size == Size(266_610, 266_610, 4 * 266_610, 4 * 266_610)  # kept whole, a bit mask would only add to it

    @given(density=st.floats(0, 1), seed=st.integers(0, 1_000))
    @settings(deadline=None, max_examples=25)
    def test_packed_is_a_bit_a_weight_and_the_kept_values(self, density: float, seed: int) -> None:
        masks = _random_masks(LENET, density, seed)
        size = count_size(LENET, masks)
        assert size.kept == 410 + masks.kept
        packed = [min(4 * mask.total, -(-mask.total // 8) + 4 * mask.kept) for mask in masks.values()]
        assert size.packed_bytes == 4 * 410 + sum(packed) <= size.dense_bytes

    def test_buffers_and_precision_count_as_they_are_stored(self) -> None:
        model = SmallNet()
        parameters = 216 + 8 + 8 + 8 + 144 + 1400 + 7
        size = count_size(model, Masks.full(model))
        assert size.parameters == parameters
        assert size.dense_bytes == 4 * (parameters + 8 + 8) + 8  # running statistics, and how many batches they saw
        half = count_size(SmallNet().half(), Masks.full(model))
        assert half.dense_bytes == 2 * (parameters + 8 + 8) + 8

    def test_what_is_not_stored_does_not_count(self) -> None:
        model = nn.Linear(4, 3)
        model.register_buffer("scratch", torch.ones(100), persistent=False)
        assert count_size(model, Masks.full(model)).dense_bytes == 4 * 15

    def test_a_tied_weight_counts_once(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        model[2].weight = model[0].weight
        masks = Masks({"0.weight": Mask(torch.eye(4, dtype=torch.bool))})
        assert count_size(model, masks) == Size(24, 12, 96, 96 - 64 + 2 + 16)

    def test_it_is_what_the_files_take(self, tmp_path: Path) -> None:
        """Up to the headers of the files."""
        model = build(ModelSpec(input_shape=(1, 28, 28), classes=10, seed=0))
        masks = _random_masks(model, 0.1)
        masks.apply_(model)
        size = count_size(model, masks)
        save_tensors(tmp_path / "dense", model.state_dict())
        bits = {f"{n}.bits": torch.from_numpy(np.packbits(m.keep.numpy().reshape(-1))) for n, m in masks.items()}
        values = {f"{n}.values": prunable_parameters(model)[n].detach()[m.keep] for n, m in masks.items()}
        biases = {n: t for n, t in model.state_dict().items() if n not in masks}
        save_tensors(tmp_path / "packed", bits | values | biases)
        assert 0 < (tmp_path / "dense").stat().st_size - size.dense_bytes < 1_500
        assert 0 < (tmp_path / "packed").stat().st_size - size.packed_bytes < 1_500
