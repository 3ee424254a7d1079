"""VGG-11, 13, 16 and 19 for small images: Simonyan & Zisserman 2015 (arXiv 1409.1556), configurations A, B, D and E.

As pruning papers use them on CIFAR (Liu et al. 2017, arXiv 1708.06519; Frankle & Carbin 2019): batch norm after every
convolution, and the mean over the image with one Linear layer in place of the three dense layers for ImageNet.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each stage by depth; table 1 of the paper. Its depths count three dense layers, here there is one."""


def vgg(input_shape: Sequence[int], classes: int, widths: Sequence[int], depth: int) -> nn.Sequential:
    """Five stages of 3×3 convolutions, each ended by a 2×2 max pool, the mean over the image, output.

    `widths` are the stages' channels, `depth` is 11, 13, 16 or 19; `conv_i`, `norm_i` and `relu_i` count through all
    stages. Takes inputs (n, channels, height, width) of 32×32 or more, gives logits (n, classes).
    """
    channels, number = input_shape[0], 0
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for stage, (filters, convolutions) in enumerate(zip(widths, CONVOLUTIONS[depth], strict=True), start=1):
        for _ in range(convolutions):
            number += 1
            layers[f"conv_{number}"] = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
            layers[f"norm_{number}"] = nn.BatchNorm2d(filters)
            layers[f"relu_{number}"] = nn.ReLU()
            channels = filters
        layers[f"pool_{stage}"] = nn.MaxPool2d(2)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)
