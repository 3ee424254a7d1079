"""Chains of convolutions, pools and dense layers: the shape that the small convolutional networks share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from tombola.models.dense import dense_layers


def convolutional_chain(
    input_shape: Sequence[int],
    classes: int,
    blocks: Sequence[Sequence[int]],
    dense: Sequence[int],
    kernel: int,
    padding: int,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Convolutions (`conv_1`, `conv_2`, ...), a 2×2 max pool after each block of them, dense layers, `output`.

    `blocks` holds the filters of each block's convolutions, `dense` the units of `dense_1`, `dense_2`, ...;
    a ReLU follows every layer but the last, `dropout` every dense one but the last. Takes inputs (n, channels, height,
    width), gives logits (n, classes).
    """
    channels, height, width = input_shape
    shrinks = kernel - 1 - 2 * padding
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    number = 0
    for block, filters_of_block in enumerate(blocks, start=1):
        for filters in filters_of_block:
            number += 1
            layers[f"conv_{number}"] = nn.Conv2d(channels, filters, kernel, padding=padding)
            layers[f"conv_relu_{number}"] = nn.ReLU()
            channels, height, width = filters, height - shrinks, width - shrinks
        layers[f"pool_{block}"] = nn.MaxPool2d(2)
        height, width = height // 2, width // 2
    layers["flatten"] = nn.Flatten()
    layers.update(dense_layers(channels * height * width, dense, classes, "dense_", dropout))
    return nn.Sequential(layers)
