"""FLOPs and bytes are counted: against hand counts, and without a trace left on the model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from tombola.compression.cost import Flops, Size, count_flops, count_size
from tombola.errors import ModelError
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
@settings(max_examples=15)
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
    with pytest.raises(ModelError, match=r"does not run there on an input of shape \(1, 3, 9, 100\)"):
        count_flops(model, (3, 9, 100), Masks.full(model))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


class Functional(nn.Module):
    """Takes the weight of one layer as it is, and another one made of the other layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear((x @ self.first.weight.T).relu(), self.second.weight.double().float())


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 3)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.encoder(self.up(x), src_key_padding_mask=x[..., 0] < 0)[:, 0])


class Placed(nn.Module):
    """Makes tensors of its own on the way: positions, a table that it stacks, a first state."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(x.shape[1]).unsqueeze(-1) * torch.tensor([0.1, 0.2]).sum()
        state = torch.zeros(len(x), 16)
        return self.out(torch.cat([self.inner(x + positions)[:, 0:1], state[:, None]], 1)).sum(1)


def _called_twice() -> nn.Module:
    layer = nn.Linear(8, 8)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(8, 3))


class TestWhateverTheModel:
    def test_a_layer_called_twice_under_two_names_costs_twice(self) -> None:
        model = _called_twice()
        masks = _random_masks(model, 0.5)
        kept = [mask.kept for mask in masks.values()]
        assert count_flops(model, (8,), masks) == Flops(2 * (2 * 64 + 24), 2 * (2 * kept[0] + kept[1]))

    def test_functional_products_count_and_weights_made_of_others_are_named(self) -> None:
        model = Functional()
        masks = _random_masks(model, 0.5)
        found = count_flops(model, (8,), masks)
        assert found == Flops(2 * (128 + 64), 2 * (masks["first.weight"].kept + 64), unseen=("second.weight",))
        assert count_flops(model, (8,), Masks.full(model)).unseen == ()

    def test_a_transformer_with_a_padding_mask(self) -> None:
        model, positions = Padded(), 5
        full, masks = Masks.full(model), _random_masks(model, 0.5)
        dense = count_flops(model, (positions, 8), full)
        assert dense.effective == dense.dense
        often = {name: 1 if name == "down.weight" else positions for name in masks}
        saved = sum(2 * often[name] * (masks[name].total - masks[name].kept) for name in masks)
        assert count_flops(model, (positions, 8), masks).effective == dense.dense - saved

    def test_tensors_that_a_forward_pass_makes_are_without_numbers_too(self) -> None:
        model, positions = Placed(), 5
        model(torch.zeros(1, positions, 8))
        masks = _random_masks(model, 0.5)
        kept = positions * masks["inner.weight"].kept + 2 * masks["out.weight"].kept
        assert count_flops(model, (positions, 8), masks) == Flops(2 * (positions * 128 + 2 * 64), 2 * kept)
        assert torch.zeros(1).device.type == "cpu"

    def test_transposed_convolutions_take_a_weight_once_per_input(self) -> None:
        model = nn.Sequential(nn.ConvTranspose2d(2, 3, 3, stride=2))
        masks = _random_masks(model, 0.5)
        assert count_flops(model, (2, 5, 5), masks) == Flops(2 * 25 * 54, 2 * 25 * masks.kept)

    @pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
    def test_wrappers_come_off(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        masks = _random_masks(model, 0.5)
        assert count_flops(wrap(model), (4,), masks) == count_flops(model, (4,), masks)

    def test_a_layer_without_weights_costs_nothing(self) -> None:
        model = nn.Sequential(nn.Linear(0, 4), nn.ReLU(), nn.Linear(4, 2))
        assert count_flops(model, (0,), Masks.full(model)) == Flops(16, 16)

    @pytest.mark.parametrize(
        "make",
        [
            _called_twice,
            lambda: nn.Sequential(spectral_norm(nn.Linear(8, 5)), nn.Linear(5, 3)),
            lambda: nn.Sequential(weight_norm(nn.Linear(8, 5)), nn.Linear(5, 3)),
            lambda: nn.Sequential(nn.Linear(8, 5), nn.BatchNorm1d(5, momentum=None), nn.Linear(5, 3)),
            lambda: nn.Sequential(nn.Linear(8, 5), Calls(), nn.Linear(5, 3)),
        ],
        ids=["shared", "spectral norm", "weight norm", "batch norm", "counts its calls"],
    )
    def test_nothing_of_the_model_changes(self, make: Callable[[], nn.Module]) -> None:
        model = make().train()
        masks = _random_masks(model, 0.5)
        before = copy.deepcopy(model.state_dict())
        parameters = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
        hooks = [dict(module._forward_hooks) for module in model.modules()]
        count_flops(model, (8,), masks)
        assert {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)} == parameters
        assert [dict(module._forward_hooks) for module in model.modules()] == hooks
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert all(module.training for module in model.modules())


class Calls(nn.Module):
    """Counts its calls, in evaluation, too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x


class TestDeadUnits:
    """4 inputs, 3 and 3 hidden units, 2 outputs. Unit 0 of the first layer has no inputs, unit 2 no outputs."""

    MASKS = Masks(
        {
            "0.weight": Mask(torch.tensor([[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]).bool()),
            "2.weight": Mask(torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0]]).bool()),
            "4.weight": Mask(torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()),
        }
    )

    def test_their_weights_are_left_out_in_turn(self) -> None:
        model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
        found = count_flops(model, (4,), self.MASKS)
        # Left: 2 into unit 1; from it 1 into the second layer's unit 1 (unit 2 has no outputs, unit 0 is a constant
        # now, for what reaches it is one); from there 1 to an output.
        assert (found.effective, found.without_dead) == (2 * 13, 2 * 4)

    def test_a_network_of_the_same_outputs_without_them(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
        self.MASKS.apply_(model)
        x = torch.randn(20, 4)
        first, second, last = model[0], model[2], model[4]
        with torch.no_grad():
            constant = first.bias[0].relu()
            inner = (first.weight[1, :2] @ x[:, :2].T + first.bias[1]).relu()
            folded = second.bias[1] + second.weight[1, 0] * constant
            hidden = (second.weight[1, 1] * inner + folded).relu()
            left = (second.bias[0] + second.weight[0, 0] * constant).relu()
            own = torch.stack([last.weight[0, 1] * hidden, torch.zeros(20)], 1) + last.weight[:, 0] * left + last.bias
            assert torch.allclose(own, model(x), atol=1e-6)

    def test_where_it_is_not_exact_there_is_no_number(self) -> None:
        model = SmallNet()
        assert count_flops(model, (3, 10, 10), Masks.full(model)).without_dead is None


class TestSize:
    def test_of_a_dense_model(self) -> None:
        size = count_size(LENET, Masks.full(LENET))
        assert size == Size(266_610, 266_610, 4 * 266_610, 4 * 266_610)  # kept whole, a bit mask would only add to it

    @given(density=st.floats(0, 1), seed=st.integers(0, 1_000))
    @settings(max_examples=25)
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
        save_tensors(tmp_path / "dense", model.state_dict())  # before, since a pruned one is packed
        masks.apply_(model)
        size = count_size(model, masks)
        bits = {f"{n}.bits": torch.from_numpy(np.packbits(m.keep.numpy().reshape(-1))) for n, m in masks.items()}
        values = {f"{n}.values": prunable_parameters(model)[n].detach()[m.keep] for n, m in masks.items()}
        biases = {n: t for n, t in model.state_dict().items() if n not in masks}
        save_tensors(tmp_path / "packed", bits | values | biases)
        assert 0 < (tmp_path / "dense").stat().st_size - size.dense_bytes < 1_500
        assert 0 < (tmp_path / "packed").stat().st_size - size.packed_bytes < 1_500
