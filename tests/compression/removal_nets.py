"""Small networks of the kinds whose units are coupled: residuals, concatenation, groups, heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.models import ModelSpec, build

Case = tuple[nn.Module, Any]
"""A network and an example of its input."""


def _zoo(architecture: str, widths: tuple[int, ...], shape: tuple[int, ...]) -> Case:
    spec = ModelSpec(architecture=architecture, widths=widths, input_shape=shape, classes=5, seed=1)
    return build(spec), torch.randn(2, *shape)


class ResidualB(nn.Module):
    """A block whose shortcut is a 1×1 convolution (option B)."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.norm2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if before != after or stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = functional.relu(self.norm1(self.conv1(inputs)))
        return functional.relu(self.norm2(self.conv2(hidden)) + self.shortcut(inputs))


def resnet_b(widths: tuple[int, ...] = (8, 12, 16), blocks: int = 1, classes: int = 5) -> nn.Module:
    """ResNet for CIFAR with option-B shortcuts; ResNet-20 with widths (16, 32, 64) and 3 blocks."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    channels = widths[0]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            layers.append(ResidualB(channels, width, 2 if stage and not block else 1))
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class PaddedOnBothSides(nn.Module):
    """A padded shortcut as it is often written: the numbers of zeros are in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16)
        self.conv3, self.output = nn.Conv2d(16, 10, 3), nn.Linear(10, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = functional.relu(self.norm1(self.conv1(inputs)))
        shortcut = functional.pad(hidden[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        hidden = functional.relu(self.norm2(self.conv2(hidden)) + shortcut)
        return self.output(functional.relu(self.conv3(hidden)).mean((2, 3)))


def mobilenet() -> nn.Module:
    """Inverted bottlenecks: expansion, a depth-wise convolution, projection."""

    class Bottleneck(nn.Module):
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            wide = before * 3
            self.layers = nn.Sequential(
                *(nn.Conv2d(before, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()),
                *(nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()),
                *(nn.Conv2d(wide, after, 1, bias=False), nn.BatchNorm2d(after)),
            )
            self.adds = stride == 1 and before == after

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs + self.layers(inputs) if self.adds else self.layers(inputs)

    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish()),
        *(Bottleneck(8, 8, 1), Bottleneck(8, 12, 2), Bottleneck(12, 12, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(12, 5)),
    )


class DenseBlock(nn.Module):
    """Every layer reads all before it; then a transition and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * i, 4, 3, padding=1, bias=False) for i in range(3))
        self.transition = nn.Sequential(nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 10, 1), nn.AvgPool2d(2))
        self.output = nn.Linear(10, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.stem(inputs)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features = torch.cat([features, conv(functional.relu(norm(features)))], 1)
        return self.output(self.transition(features).mean((2, 3)))


class UNet(nn.Module):
    """Two levels, with transposed convolutions and concatenated skips; gives an image."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.down2 = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(12, 6, 2, stride=2)
        self.merge = nn.Sequential(nn.Conv2d(14, 8, 3, padding=1), nn.ReLU())
        self.output = nn.Conv2d(8, 2, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        high = self.down1(inputs)
        low = self.down2(functional.max_pool2d(high, 2))
        return self.output(self.merge(torch.cat([high, self.up(low)], 1)))


class SqueezeExcite(nn.Module):
    """Channels that are scaled by what a small network makes of their means; a bottleneck with shared weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(4, 8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.grouped = nn.Conv2d(8, 12, 3, groups=2)
        self.shared, self.output = nn.Linear(12, 12), nn.Linear(12, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = functional.silu(self.norm(self.conv(inputs)))
        gate = torch.sigmoid(self.excite(functional.relu(self.squeeze(hidden.mean((2, 3), keepdim=True)))))
        hidden = functional.relu(self.grouped(hidden * gate)).flatten(2).mean(2)
        return self.output(functional.gelu(self.shared(functional.gelu(self.shared(hidden)))))


class Shuffled(nn.Module):
    """Half of the channels pass by, then halves are interleaved (ShuffleNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last, self.output = nn.Conv2d(8, 6, 1), nn.Linear(6, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        one, other = self.stem(inputs).chunk(2, 1)
        hidden = torch.cat([one, functional.relu(self.branch(other))], 1)
        n, channels, height, width = hidden.shape
        hidden = hidden.view(n, 2, channels // 2, height, width).transpose(1, 2).reshape(n, -1, height, width)
        return self.output(functional.relu(self.last(hidden)).amax((2, 3)))


class Encoder(nn.Module):
    """Two encoder layers of torch on embedded numbers, and the mean over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
        self.blocks, self.output = nn.TransformerEncoder(layer, 2), nn.Linear(16, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(self.blocks(self.embed(tokens)).mean(1))


IMAGES = (2, 3, 16, 16)
NETS: dict[str, Callable[[], Case]] = {
    "lenet-300-100": lambda: _zoo("lenet-300-100", (12, 8), (1, 6, 6)),
    "lenet5": lambda: _zoo("lenet5", (4, 6, 10, 8), (1, 20, 20)),
    "vgg11": lambda: _zoo("vgg11", (4, 6, 8, 8, 8), (3, 32, 32)),
    "resnet20, padded": lambda: _zoo("resnet20", (4, 6, 8), (3, 8, 8)),
    "resnet, option B": lambda: (resnet_b(), torch.randn(IMAGES)),
    "padded by fixed numbers": lambda: (PaddedOnBothSides(), torch.randn(IMAGES)),
    "mobilenet": lambda: (mobilenet(), torch.randn(IMAGES)),
    "densenet": lambda: (DenseBlock(), torch.randn(IMAGES)),
    "u-net": lambda: (UNet(), torch.randn(IMAGES)),
    "squeeze-excite": lambda: (SqueezeExcite(), torch.randn(IMAGES)),
    "shufflenet": lambda: (Shuffled(), torch.randn(IMAGES)),
    "encoder": lambda: (Encoder(), torch.randn(2, 5, 6)),
}


def network(name: str) -> Case:
    """The network, always the same, its batch norms having seen something."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model, example = NETS[name]()
        model.train()
        if name != "encoder":
            with torch.no_grad():
                model(example * 2 + 1)
        return model.eval(), example
