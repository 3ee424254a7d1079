"""Exits: what they are called, where they cut, and that both sides of a cut are the network."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from small_exits import SHAPE, VGG, WIDTHS, small
from tombola.errors import ConfigError
from tombola.models import ModelSpec, build
from tombola.models.exits import default_exits, exit_names, find_exit, prefix, rest
from tombola.pruning import Masks

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
