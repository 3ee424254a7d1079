"""ResNet-20 for CIFAR: He et al. 2016 (arXiv 1512.03385), section 4.2, with option-A shortcuts.

A shortcut has no weights: where a block halves the image it takes every second pixel and fills the new
channels with 0.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

BLOCKS = 3
"""Blocks of two convolutions in each of the three stages: 3 × 3 × 2 + 2 = 20 layers."""


def resnet20(input_shape: Sequence[int], classes: int, widths: Sequence[int]) -> nn.Sequential:
    """conv_1, stages of three blocks, the mean over the image, output; `widths` are the stages' channels.

    Takes inputs (n, channels, height, width), gives logits (n, classes). Raises ValueError for falling widths.
    """
    if any(after < before for before, after in itertools.pairwise(widths)):
        raise ValueError("a shortcut can add channels but not remove them, so widths may not fall")
    channels = widths[0]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv_1=nn.Conv2d(input_shape[0], channels, 3, padding=1, bias=False),
        norm_1=nn.BatchNorm2d(channels),
        relu_1=nn.ReLU(),
    )
    for number, filters in enumerate(widths, start=1):
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for block in range(1, BLOCKS + 1):
            blocks[f"block_{block}"] = Block(channels, filters, stride=2 if number > 1 and block == 1 else 1)
            channels = filters
        layers[f"stage_{number}"] = nn.Sequential(blocks)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)


class Block(nn.Module):
    """Two 3×3 convolutions with batch norm, and a shortcut around them."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.norm_1 = nn.BatchNorm2d(filters)
        self.conv_2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.norm_2 = nn.BatchNorm2d(filters)
        self.stride = stride
        self.new_channels = filters - channels

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = functional.relu(self.norm_1(self.conv_1(inputs)))
        return functional.relu(self.norm_2(self.conv_2(hidden)) + self._shortcut(inputs))

    def units_removed(self) -> None:
        """Pads as many channels as its convolutions have left more than its input has."""
        self.new_channels = self.norm_2.num_features - self.conv_1.in_channels

    def _shortcut(self, inputs: Tensor) -> Tensor:
        if self.stride == 1 and not self.new_channels:
            return inputs
        return functional.pad(inputs[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
