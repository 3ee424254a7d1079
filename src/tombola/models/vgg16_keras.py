"""VGG16 as Keras's applications have it, layer by layer and by their names: Simonyan & Zisserman 2015, configuration D.

No batch norm, two dense layers before the output. Its convolutions take the published ImageNet weights
(`tombola.models.pretrained`); networks that are trained from nothing learn better with batch norm, see `vgg`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from tombola.models.dense import dense_layers
from tombola.models.vgg import CONVOLUTIONS

STAGES = CONVOLUTIONS[16]


def vgg16_keras(input_shape: Sequence[int], classes: int, widths: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Five blocks of 3×3 convolutions `blockI_convJ`, each ended by `blockI_pool`, then `fc1`, `fc2`, `output`.

    `widths` are the channels of the five blocks and the units of `fc1` and `fc2`. Takes inputs (n, channels, height,
    width) of 32×32 or more, gives logits (n, classes).
    """
    channels, height, width = input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for block, (filters, convolutions) in enumerate(zip(widths, STAGES, strict=False), start=1):
        for number in range(1, convolutions + 1):
            name = f"block{block}_conv{number}"
            layers[name] = nn.Conv2d(channels, filters, 3, padding=1)
            layers[f"{name}_relu"] = nn.ReLU()
            channels = filters
        layers[f"block{block}_pool"] = nn.MaxPool2d(2)
        height, width = height // 2, width // 2
    layers["flatten"] = nn.Flatten()
    layers.update(dense_layers(channels * height * width, widths[len(STAGES) :], classes, "fc", dropout))
    return nn.Sequential(layers)
