"""Exits: what they are called, where they cut, and that a network runs on from where it was cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from small_exits import SHAPE, VGG, WIDTHS, small
from tombola.errors import ConfigError
from tombola.models import ModelSpec, build
from tombola.models.exits import default_exits, exit_names, find_exit, prefix
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
def images() -> Tensor:
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
def test_up_to_an_exit_it_is_the_network(architecture: str, images: Tensor) -> None:
    model = small(architecture)
    names = dict(model.named_parameters())
    masks = Masks.full(model)
    with torch.no_grad():
        for name in exit_names(model):
            exit = find_exit(model, name)
            before = prefix(model, exit)
            assert torch.equal(model[exit.length :](before(images)), model(images))
            own = dict(before.named_parameters())
            assert own
            assert all(names[key] is parameter for key, parameter in own.items())
            assert set(Masks.full(before)) <= set(masks)


class TestCutNetworks:
    """As frozen bases are: what is left of a network has the names that it had in the whole."""

    @pytest.mark.parametrize("architecture", [*VGG, "vgg16-keras"])
    def test_a_vgg_keeps_kerass_names(self, architecture: str) -> None:
        model = small(architecture)
        names = exit_names(model)
        first = names.index("block1_pool")
        for count, name in enumerate(names[first:], start=first + 1):
            cut = prefix(model, find_exit(model, name))
            assert exit_names(cut) == names[:count]
            for known in names[:count]:
                assert find_exit(cut, known) == find_exit(model, known)

    @pytest.mark.parametrize("architecture", ["vgg16", "vgg16-keras"])
    def test_layers_that_were_cut_off_are_no_exits(self, architecture: str) -> None:
        model = small(architecture)
        cut = prefix(model, find_exit(model, "block3_conv2"))
        assert default_exits(cut) == ["block1_conv2", "block2_conv2", "block3_conv2"]
        with pytest.raises(ConfigError, match="no exit 'block3_conv3'"):
            find_exit(cut, "block3_conv3")

    @pytest.mark.parametrize("architecture", ["lenet5", "conv4", "resnet20"])
    def test_another_networks_layers_keep_their_own(self, architecture: str) -> None:
        """Conv-4's blocks are a VGG13's first two; a ResNet begins with a convolution and its norm."""
        model = small(architecture)
        names = exit_names(model)
        for count, name in enumerate(names, start=1):
            assert exit_names(prefix(model, find_exit(model, name))) == names[:count]

    @pytest.mark.parametrize("convolutions", [(1, 3), (3,), (2, 2, 5), (2, 3), (2, 2, 2, 3)])
    def test_blocks_that_no_vgg_has(self, convolutions: tuple[int, ...]) -> None:
        assert "block1_conv1" not in exit_names(blocks(convolutions))

    @pytest.mark.parametrize(("convolutions", "some_vgg"), [((2, 2, 4), True), ((2, 2, 5), False), ((1, 1, 3), False)])
    def test_convolutions_behind_the_last_pool(self, convolutions: tuple[int, ...], some_vgg: bool) -> None:
        assert ("block1_conv1" in exit_names(blocks(convolutions)[:-1])) == some_vgg

    @pytest.mark.parametrize("options", [{"kernel_size": 5, "padding": 2}, {"kernel_size": 3, "padding": 0}])
    def test_convolutions_that_no_vgg_has(self, options: dict[str, int]) -> None:
        assert "block1_conv1" in exit_names(blocks((2, 2)))
        assert "block1_conv1" in exit_names(blocks((2, 2), kernel_size=3, padding="same"))
        assert "block1_conv1" not in exit_names(blocks((2, 2), **options))
        assert "block1_conv1" not in exit_names(blocks((2, 2, 3, 3, 3), **options))

    def test_without_batch_norm_a_vgg_has_five_blocks(self) -> None:
        assert "block1_conv1" in exit_names(blocks((2, 2, 3, 3, 3), norm=False))
        assert "block1_conv1" not in exit_names(blocks((2, 2, 3, 3), norm=False))
        assert "block1_conv1" not in exit_names(blocks((2, 2, 3, 3, 3, 1)))

    def test_a_first_convolution_is_no_vgg(self) -> None:
        assert exit_names(blocks((1,))[:3]) == ["0"]


def blocks(convolutions: Sequence[int], norm: bool = True, **options: Any) -> nn.Sequential:
    """Blocks of so many convolutions, each ended by a pool; layers are called by their places."""
    layers: list[nn.Module] = []
    for count in convolutions:
        for _ in range(count):
            layers.append(nn.Conv2d(1, 1, **({"kernel_size": 3, "padding": 1} | options)))
            layers += [nn.BatchNorm2d(1), nn.ReLU()] if norm else [nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


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
        self.says(small("vgg16-keras"), name, [f"no exit at {name!r}, whose output is no image", "block5_pool"])

    def test_networks_without_convolutions_have_none(self) -> None:
        dense = build(ModelSpec(architecture="lenet-300-100", input_shape=SHAPE, classes=10, seed=0))
        assert exit_names(dense) == default_exits(dense) == []
        self.says(dense, "fc1", ["no exit 'fc1'", "no convolution before its dense layers"])

    @pytest.mark.parametrize("model", [Own(nn.Conv2d(1, 3, 3)), nn.Conv2d(1, 3, 3)])
    def test_a_network_that_is_no_plain_chain_is_refused(self, model: nn.Module) -> None:
        self.says(model, "0", ["plain torch.nn.Sequential", type(model).__name__])
        with pytest.raises(ConfigError, match=type(model).__name__):
            exit_names(model)
