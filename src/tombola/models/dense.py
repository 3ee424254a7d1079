"""Dense layers at the end of a network, named and followed by ReLU and, where it is asked for, dropout."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn


def dense_layers(
    features: int, units: Sequence[int], classes: int, prefix: str, dropout: float = 0.0
) -> OrderedDict[str, nn.Module]:
    """A Linear layer `<prefix>1`, `<prefix>2`, ... of so many `units` each with its `_relu`, then the Linear `output`.

    With `dropout`, the fraction of units that a training step silences, a `_dropout` follows each ReLU.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, width in enumerate(units, start=1):
        name = f"{prefix}{number}"
        layers[name] = nn.Linear(features, width)
        layers[f"{name}_relu"] = nn.ReLU()
        if dropout:
            layers[f"{name}_dropout"] = nn.Dropout(dropout)
        features = width
    layers["output"] = nn.Linear(features, classes)
    return layers
