"""The fully connected LeNet: LeCun et al. 1998, as pruned by Han et al. 2015 and Frankle & Carbin 2019."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from tombola.models.dense import dense_layers


def lenet_300_100(
    input_shape: Sequence[int], classes: int, widths: Sequence[int], dropout: float = 0.0
) -> nn.Sequential:
    """Flatten, then a Linear and ReLU per width (`fc1`, `fc2`, ...), then the Linear `output`.

    Takes inputs (n, *input_shape), gives logits (n, classes).
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    layers.update(dense_layers(math.prod(input_shape), widths, classes, "fc", dropout))
    return nn.Sequential(layers)
