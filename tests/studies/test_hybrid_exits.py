"""Exits: what they are called, where they cut, and that features are those of the network as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tombola.errors import ConfigError, ModelError
from tombola.models import ModelSpec, build
from tombola.pruning import Masks
from tombola.studies.hybrid.exits import (
    default_exits,
    exit_names,
    extractor,
    features_at,
    find_exit,
    poolings,
    prefix,
    rest,
)

SHAPE = (1, 32, 32)
WIDTHS = {
    "lenet5": (3, 4, 12, 8),
    "conv4": (4, 4, 5, 5, 12, 8),
    "resnet20": (4, 5, 8),
    "vgg16-keras": (4, 4, 5, 5, 6, 12, 8),
    **dict.fromkeys(("vgg11", "vgg13", "vgg16", "vgg19"), (6, 6, 7, 8, 8)),
}
VGG = {"vgg11": "11222", "vgg13": "22222", "vgg16": "22333", "vgg19": "22444"}
LAYERS = {
    "lenet5": ["conv_1", "pool_1", "conv_2", "pool_2"],
    "conv4": ["conv_1", "conv_2", "pool_1", "conv_3", "conv_4", "pool_2"],
    "resnet20": ["conv_1", "stage_1", "stage_2", "stage_3"],
}
ENDS = {
    "lenet5": ["conv_1", "conv_2"],
    "conv4": ["conv_2", "conv_4"],
    "resnet20": ["conv_1", "stage_1", "stage_2", "stage_3"],
    "vgg16-keras": [f"block{block}_conv{count}" for block, count in enumerate("22333", start=1)],
    **{name: [f"block{b}_conv{count}" for b, count in enumerate(stages, start=1)] for name, stages in VGG.items()},
}


def small(architecture: str, **fields: Any) -> nn.Sequential:
    """A network that has seen a few pictures, so that its norms do something."""
    spec = ModelSpec(
        architecture=architecture, input_shape=SHAPE, classes=10, seed=3, widths=WIDTHS[architecture], **fields
    )
    model = build(spec)
    torch.manual_seed(0)
    model.train()(torch.rand(20, *SHAPE))
    assert isinstance(model, nn.Sequential)
    return model.eval()


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.rand(11, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("architecture", LAYERS)
def test_exits_are_convolutions_and_pools_by_their_names(architecture: str) -> None:
    assert exit_names(small(architecture)) == LAYERS[architecture]


@pytest.mark.parametrize("architecture", [*VGG, "vgg16-keras"])
def test_a_vgg_has_kerass_names(architecture: str) -> None:
    stages = VGG.get(architecture, VGG["vgg16"])
    expected = []
    for block, count in enumerate(stages, start=1):
        expected += [f"block{block}_conv{number}" for number in range(1, int(count) + 1)] + [f"block{block}_pool"]
    assert exit_names(small(architecture)) == expected


@pytest.mark.parametrize("architecture", WIDTHS)
def test_by_default_a_network_is_left_after_each_block(architecture: str) -> None:
    assert default_exits(small(architecture)) == ENDS[architecture]


def test_both_names_of_a_layer_are_one_exit() -> None:
    model = small("vgg16")
    for keras, own in [("block1_conv1", "conv_1"), ("block3_conv3", "conv_7"), ("block5_pool", "pool_5")]:
        by_keras, by_own = find_exit(model, keras), find_exit(model, own)
        assert (by_keras.name, by_own.name) == (keras, own)
        assert by_keras.layer == by_own.layer == own
        assert by_keras.length == by_own.length


@pytest.mark.parametrize(
    ("architecture", "name", "last"),
    [
        ("vgg16", "block3_conv3", "relu_7"),
        ("vgg16", "conv_7", "relu_7"),
        ("vgg16", "norm_7", "relu_7"),
        ("vgg16", "relu_7", "relu_7"),
        ("vgg16", "block3_pool", "pool_3"),
        ("vgg16", "pool", "pool"),
        ("vgg16-keras", "block3_conv3", "block3_conv3_relu"),
        ("lenet5", "conv_2", "conv_relu_2"),
        ("resnet20", "stage_2", "stage_2"),
    ],
)
def test_an_exit_is_the_activation_behind_its_layer(architecture: str, name: str, last: str) -> None:
    model = small(architecture)
    assert [own for own, _ in prefix(model, find_exit(model, name)).named_children()][-1] == last


@pytest.mark.parametrize("architecture", WIDTHS)
def test_before_and_after_an_exit_are_the_network(architecture: str, pictures: Tensor) -> None:
    model = small(architecture)
    names = dict(model.named_parameters())
    masks = Masks.full(model)
    with torch.no_grad():
        for name in exit_names(model):
            exit = find_exit(model, name)
            before, after = prefix(model, exit), rest(model, exit)
            assert torch.equal(after(before(pictures)), model(pictures))
            own, other = dict(before.named_parameters()), dict(after.named_parameters())
            assert own
            assert set(own) | set(other) == set(names)
            assert not set(own) & set(other)
            assert all(names[key] is parameter for key, parameter in {**own, **other}.items())
            assert set(Masks.full(before)) <= set(masks)


class TestFeatures:
    def by_hand(self, hidden: Tensor, kind: str) -> Tensor:
        means, most = hidden.flatten(2).mean(2), hidden.flatten(2).max(2).values
        if kind == "gap":
            return means
        if kind == "gap+max":
            return torch.cat([means, most], 1)
        high, wide = hidden.shape[2] // 2, hidden.shape[3] // 2
        corners = [hidden[:, :, r * high : (r + 1) * high, c * wide : (c + 1) * wide] for r in (0, 1) for c in (0, 1)]
        return torch.stack([corner.mean((2, 3)) for corner in corners], 2).flatten(1)

    @pytest.mark.parametrize("architecture", ["vgg16", "vgg16-keras", "conv4", "resnet20"])
    @pytest.mark.parametrize("batch_size", [1, 4, 64])
    def test_they_are_the_activations_pooled(self, architecture: str, batch_size: int, pictures: Tensor) -> None:
        """What hooks see in a pass through the whole network, at exits in any order."""
        model = small(architecture)
        exits = [find_exit(model, name) for name in reversed(default_exits(model))]
        seen: dict[str, Tensor] = {}
        ends = {list(model.children())[exit.length - 1]: exit.name for exit in exits}
        hooks = [
            module.register_forward_hook(lambda own, _, output: seen.update({ends[own]: output})) for module in ends
        ]
        with torch.no_grad():
            model(pictures)
        for hook in hooks:
            hook.remove()
        found = features_at(model, exits, list(poolings), pictures, batch_size)
        assert set(found) == {(exit.name, kind) for exit in exits for kind in poolings}
        for (name, kind), features in found.items():
            assert features.dtype == np.float32
            if seen[name].shape[2] % 2 == 0:  # else the quarters of a grid overlap
                np.testing.assert_allclose(features, self.by_hand(seen[name], kind), rtol=1e-5, atol=1e-6)
            assert np.ptp(features, axis=0).any()  # pictures reach it

    def test_an_extractor_gives_the_same(self, pictures: Tensor) -> None:
        model = small("vgg16")
        exit = find_exit(model, "block3_conv3")
        found = features_at(model, [exit], list(poolings), pictures)
        for kind in poolings:
            with torch.no_grad():
                given = extractor(model, exit, kind)(pictures).numpy()
            np.testing.assert_array_equal(found[exit.name, kind], given)

    def test_a_layer_that_runs_twice_runs_twice(self, pictures: Tensor) -> None:
        relu = nn.ReLU()
        model = nn.Sequential(nn.Conv2d(1, 3, 3), relu, nn.Conv2d(3, 3, 3), relu, nn.Flatten())
        exit = find_exit(model, "2")
        with torch.no_grad():
            by_hand = model[:4](pictures).mean((2, 3))
            assert (by_hand > 0).any()
            np.testing.assert_allclose(extractor(model, exit, "gap")(pictures), by_hand, atol=1e-6)
        np.testing.assert_allclose(features_at(model, [exit], ["gap"], pictures)["2", "gap"], by_hand, atol=1e-6)

    def test_a_kind_has_so_many_features_a_channel(self, pictures: Tensor) -> None:
        model = small("vgg11")
        exit = find_exit(model, "block5_conv2")  # pictures of 2×2
        found = features_at(model, [exit], list(poolings), pictures)
        assert {kind: features.shape for (_, kind), features in found.items()} == {
            "gap": (11, 8),
            "gap+max": (11, 16),
            "grid": (11, 32),
        }

    def test_the_network_and_chance_stay_as_they_are(self, pictures: Tensor) -> None:
        model = small("conv4", dropout=0.5).train()
        model.conv_1.eval()
        modes = [module.training for module in model.modules()]
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        random = torch.get_rng_state()
        given = pictures.clone()
        exits = [find_exit(model, name) for name in exit_names(model)]
        first = features_at(model, exits, ["gap"], pictures)
        assert [module.training for module in model.modules()] == modes
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
        assert torch.equal(torch.get_rng_state(), random)
        assert torch.equal(pictures, given)
        again = features_at(model.eval(), exits, ["gap"], pictures)
        assert all(np.array_equal(first[key], again[key]) for key in first)

    def test_one_pass_serves_all_and_ends_behind_the_last_exit(self, pictures: Tensor) -> None:
        model = small("vgg16-keras")
        calls: list[str] = []
        for name, module in model.named_children():
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
        exits = [find_exit(model, name) for name in ("block3_conv1", "block1_conv2", "block1_pool")]
        features_at(model, exits, list(poolings), pictures, batch_size=64)
        assert calls == [name for name, _ in prefix(model, exits[0]).named_children()]
        assert calls[-1] == "block3_conv1_relu"
        assert features_at(model, [], list(poolings), pictures) == {}

    def test_activations_in_place_do_no_harm(self, pictures: Tensor) -> None:
        """The activation behind a pool changes what the exit before it gave."""
        model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Identity(), nn.ReLU(inplace=True), nn.Flatten())
        exit = find_exit(model, "0")
        assert exit.length == 1
        found = features_at(model, [exit], ["gap"], pictures)["0", "gap"]
        with torch.no_grad():
            np.testing.assert_allclose(found, model[0](pictures).mean((2, 3)), atol=1e-6)


class Reshaping(nn.Module):
    def forward(self, hidden: Tensor) -> Tensor:
        return hidden.sum((2, 3))


class Own(nn.Sequential):
    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden) + 1


class TestErrors:
    def says(self, model: nn.Module, name: str, parts: Sequence[str]) -> None:
        with pytest.raises(ConfigError) as caught:
            find_exit(model, name)
        assert "\n" not in str(caught.value)
        for part in parts:
            assert part in str(caught.value)

    def test_an_unknown_layer_lists_the_exits(self) -> None:
        model = small("vgg16")
        self.says(model, "block3_conv4", ["no exit 'block3_conv4'", "did you mean 'block3_conv", *exit_names(model)])
        self.says(small("lenet5"), "block1_conv1", ["conv_1, conv_2, pool_1, pool_2"])
        self.says(model, "conv_1.weight", ["no exit 'conv_1.weight'"])
        self.says(model, "", ["no exit ''"])

    @pytest.mark.parametrize("name", ["flatten", "fc1", "fc1_relu", "output"])
    def test_dense_layers_are_none(self, name: str) -> None:
        self.says(small("vgg16-keras"), name, [f"no exit at {name!r}, whose output is no picture", "block5_pool"])

    def test_networks_without_convolutions_have_none(self) -> None:
        dense = build(ModelSpec(architecture="lenet-300-100", input_shape=SHAPE, classes=10, seed=0))
        assert exit_names(dense) == default_exits(dense) == []
        self.says(dense, "fc1", ["no exit 'fc1'", "no convolution before its dense layers"])

    @pytest.mark.parametrize("model", [Own(nn.Conv2d(1, 3, 3)), nn.Conv2d(1, 3, 3)])
    def test_a_network_that_is_no_plain_chain_is_refused(self, model: nn.Module) -> None:
        self.says(model, "0", ["plain torch.nn.Sequential", type(model).__name__])
        with pytest.raises(ConfigError, match=type(model).__name__):
            exit_names(model)

    def test_a_layer_that_reshapes_is_found_when_it_runs(self, pictures: Tensor) -> None:
        model = nn.Sequential(nn.Conv2d(1, 3, 3), Reshaping(), nn.ReLU())
        with pytest.raises(ModelError, match=r"no exit at '1': it gives a tensor of shape \(11, 3\)"):
            features_at(model, [find_exit(model, "1")], ["gap"], pictures)

    def test_unknown_features_are_refused(self, pictures: Tensor) -> None:
        model = small("lenet5")
        with pytest.raises(ConfigError, match=r"unknown kind of features 'max'.*known: gap, gap\+max, grid"):
            features_at(model, [find_exit(model, "conv_1")], ["max"], pictures)
