"""VGG16 by Keras's names: the layers, shapes and counts that Keras's own summary of it prints."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tombola.compression.cost import count_flops
from tombola.models import ModelSpec, build
from tombola.models.exits import exit_names, find_exit, prefix
from tombola.pruning import Masks

SUMMARY = {
    "block1_conv1": 1_792,
    "block1_conv2": 36_928,
    "block2_conv1": 73_856,
    "block2_conv2": 147_584,
    "block3_conv1": 295_168,
    "block3_conv2": 590_080,
    "block3_conv3": 590_080,
    "block4_conv1": 1_180_160,
    "block4_conv2": 2_359_808,
    "block4_conv3": 2_359_808,
    "block5_conv1": 2_359_808,
    "block5_conv2": 2_359_808,
    "block5_conv3": 2_359_808,
    "fc1": 2_097_408,
    "fc2": 32_896,
    "output": 258,
}
"""Parameters of every layer at 128 × 128 pixels, two classes, as `model.summary()` of keras.applications has them."""


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    spec = ModelSpec(architecture="vgg16-keras", input_shape=(3, 128, 128), classes=2, seed=0, dropout=0.5)
    built = build(spec)
    assert isinstance(built, nn.Sequential)
    return built.eval()


def test_layers_and_their_parameters(model: nn.Sequential) -> None:
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in model.named_children()}
    assert [(name, count) for name, count in counts.items() if count] == list(SUMMARY.items())
    base = {name: count for name, count in counts.items() if name.startswith("block")}
    assert sum(base.values()) == 14_714_688
    assert sum(counts.values()) - sum(base.values()) == 2_130_562


def test_the_layers_between(model: nn.Sequential) -> None:
    """Every convolution and hidden dense layer has its ReLU; blocks end with a pool, hidden dense layers in dropout."""
    names = [name for name, _ in model.named_children()]
    for name in SUMMARY:
        if name != "output":
            assert isinstance(model[names.index(name) + 1], nn.ReLU)
    assert [names[i + 2] for i, name in enumerate(names) if name in ("fc1", "fc2")] == ["fc1_dropout", "fc2_dropout"]
    assert [name for name in names if name.endswith("pool")] == [f"block{block}_pool" for block in range(1, 6)]
    assert names[-1] == "output"
    convolutions = [layer for layer in model if isinstance(layer, nn.Conv2d)]
    assert all((c.kernel_size, c.stride, c.padding) == ((3, 3), (1, 1), (1, 1)) for c in convolutions)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("block1_pool", (64, 64, 64)),
        ("block2_pool", (128, 32, 32)),
        ("block3_conv3", (256, 32, 32)),
        ("block4_pool", (512, 8, 8)),
        ("block5_pool", (512, 4, 4)),
    ],
)
def test_shapes_on_the_way(layer: str, shape: tuple[int, ...], model: nn.Sequential) -> None:
    with torch.no_grad():
        assert tuple(prefix(model, find_exit(model, layer))(torch.zeros(1, 3, 128, 128)).shape[1:]) == shape
    assert layer in exit_names(model)


def test_the_head_is_hardly_any_of_its_flops(model: nn.Sequential) -> None:
    """Two a weight and position: 4.3 of some 10,000 MFLOPs, which no pruning of the head can change."""
    whole = count_flops(model, (3, 128, 128), Masks.full(model)).dense
    base = prefix(model, find_exit(model, "block5_pool"))
    convolutions = count_flops(base, (3, 128, 128), Masks.full(base)).dense
    assert whole - convolutions == 2 * (8192 * 256 + 256 * 128 + 128 * 2)
    side, by_hand = 128, 0
    for layer in base:
        if isinstance(layer, nn.Conv2d):
            by_hand += 2 * 9 * layer.in_channels * layer.out_channels * side**2
        side //= 2 if isinstance(layer, nn.MaxPool2d) else 1
    assert convolutions == by_hand == 10_022_289_408
