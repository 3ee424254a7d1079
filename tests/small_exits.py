"""Narrow networks of every kind that can be left on the way."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tombola.models import ModelSpec, build

SHAPE = (1, 32, 32)
WIDTHS = {
    "lenet5": (3, 4, 12, 8),
    "conv4": (4, 4, 5, 5, 12, 8),
    "resnet20": (4, 5, 8),
    "vgg16-keras": (4, 4, 5, 5, 6, 12, 8),
    **dict.fromkeys(("vgg11", "vgg13", "vgg16", "vgg19"), (6, 6, 7, 8, 8)),
}
VGG = {"vgg11": "11222", "vgg13": "22222", "vgg16": "22333", "vgg19": "22444"}


def small(architecture: str, **fields: Any) -> nn.Sequential:
    """A network that has seen a few images, so that its norms do something."""
    spec = ModelSpec(
        architecture=architecture, input_shape=SHAPE, classes=10, seed=3, widths=WIDTHS[architecture], **fields
    )
    model = build(spec)
    torch.manual_seed(0)
    model.train()(torch.rand(20, *SHAPE))
    assert isinstance(model, nn.Sequential)
    return model.eval()
