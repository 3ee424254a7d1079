"""Convolutional networks as people write them, small: for tests of what sparse kernels take over, and compute."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola import Mask, Masks


def some_masks(model: nn.Module, density: float, seed: int = 0) -> Masks:
    """Layers keep about so much; of each some outputs keep nothing, and a few kept weights are 0."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, mask in Masks.full(model).items():
        keep = torch.rand(mask.shape, generator=generator) < density
        keep[torch.rand(len(keep), generator=generator) < 0.2] = False
        masks[name] = Mask(keep)
    return Masks(masks)


def with_statistics(model: nn.Module, seed: int = 0) -> nn.Module:
    """Norms that have seen data, and weights of which some are exactly 0; in evaluation."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.3, 3, generator=generator)
            if module.affine:
                module.weight.data.normal_(generator=generator)
                module.bias.data.normal_(generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[torch.rand(parameter.shape, generator=generator) < 0.02] = 0
    return model.eval()


def masked(model: nn.Module, masks: Masks) -> nn.Module:
    """A dense copy under the masks."""
    own = copy.deepcopy(model).eval()
    masks.apply_(own)
    return own


class Functional(nn.Module):
    """A forward of its own, functions in place of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 9, 3, stride=2)
        self.hidden, self.output = nn.Linear(9 * 9, 11), nn.Linear(11, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.first(x)), 2)
        x = functional.relu(self.second(x), inplace=True)
        x = torch.flatten(functional.avg_pool2d(x, 3, 2, padding=1), 1)
        x = functional.dropout(functional.relu(self.hidden(x)), 0.5, self.training)
        return self.output(x)


class Viewed(nn.Module):
    """How images become features: `how` gives (n, 5, ...) to (n, 5 · ...)."""

    def __init__(self, how: Callable[[Tensor], Tensor], features: int = 5 * 5 * 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
        self.how, self.head = how, nn.Linear(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.how(self.body(x)))


class BasicBlock(nn.Module):
    """As torchvision writes ResNet-18's."""

    def __init__(self, channels: int, filters: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample = None
        if stride > 1 or channels != filters:
            shortcut = nn.Conv2d(channels, filters, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(filters))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    """As torchvision writes ResNet-50's, with groups as ResNeXt has them."""

    def __init__(self, channels: int, width: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        filters = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, filters, 1, bias=False), nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1 or channels != filters:
            shortcut = nn.Conv2d(channels, filters, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(filters))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    """torchvision's: stem, stages, `torch.flatten(avgpool(x), 1)`."""

    def __init__(self, *stages: nn.Module, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.Sequential(*stages)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(features, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.stages(x)), 1))


class PreActivation(nn.Module):
    """He et al. 2016 (arXiv 1603.05027): batch norm and ReLU before each convolution."""

    def __init__(self, channels: int, filters: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(filters), nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(channels, filters, 1, stride, bias=False) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(out)
        out = self.conv1(out)
        out = self.conv2(functional.relu(self.bn2(out)))
        return out + shortcut


class OptionA(nn.Module):
    """A shortcut without weights: every second pixel, and channels of zeros on both sides."""

    def __init__(self, channels: int, before: int, behind: int, stride: int = 2) -> None:
        super().__init__()
        filters = channels + before + behind
        self.conv = nn.Conv2d(channels, filters, 3, stride, 1)
        self.pad, self.stride = (0, 0, 0, 0, before, behind), stride

    def forward(self, x: Tensor) -> Tensor:
        shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], self.pad, "constant", 0)
        return functional.relu(self.conv(x) + shortcut)


class Separable(nn.Module):
    """MobileNet's depthwise and pointwise convolutions; a residual without a ReLU behind it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(2 * channels)
        self.pointwise = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x.add(self.pointwise(self.norm(self.depthwise(x)).relu()))


class Diamond(nn.Module):
    """Values that are read several times, and sums of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.norm, self.pool = nn.BatchNorm2d(4), nn.MaxPool2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = functional.relu(self.b(a)) + a
        c = self.norm(b + self.pool(b))
        return torch.add(self.c(c), functional.relu(c)) + x


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, body: nn.Module, in_place: bool = False) -> None:
        super().__init__()
        self.body, self.in_place = body, in_place

    def forward(self, x: Tensor) -> Tensor:
        if self.in_place:
            x += self.body(x)
            return functional.relu_(x)
        return self.body(x) + x


class SizesAsNumbers(nn.Module):
    """A pool of the whole image, and as many channels more, by what the sizes of values are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(8, 5, 3, padding=1)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x))
        x = self.second(functional.pad(x, (0, 0, 0, 0, x.shape[1] // 2, x.size(1) - 2)))
        return self.head(functional.avg_pool2d(x, x.size()[2:]).view(x.size(0), -1))


class Shared(nn.Module):
    """One convolution and one ReLU in several places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(self.relu(self.conv(x)) + x))


def sequence(*modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(*modules)


def conv(*arguments: Any, **options: Any) -> nn.Sequential:
    """One convolution and a ReLU."""
    return nn.Sequential(nn.Conv2d(*arguments, **options), nn.ReLU())


Made = tuple[Callable[[], nn.Module], tuple[int, ...]]
"""A model and the shape of one of its inputs."""

GEOMETRIES: dict[str, Made] = {
    "3×3": (lambda: conv(3, 5, 3), (3, 8, 8)),
    "3×3 padded": (lambda: conv(3, 5, 3, padding=1), (3, 16, 16)),
    "same": (lambda: conv(3, 5, (3, 5), padding="same", dilation=(2, 1)), (3, 17, 13)),
    "valid": (lambda: conv(3, 5, 3, padding="valid"), (3, 17, 13)),
    "stride 2": (lambda: conv(4, 3, 3, stride=2, padding=1), (4, 17, 13)),
    "stride 3": (lambda: conv(4, 3, 5, stride=3, padding=2, bias=False), (4, 17, 13)),
    "strides": (lambda: conv(2, 3, (2, 3), stride=(3, 2), padding=(1, 0)), (2, 14, 19)),
    "dilated": (lambda: conv(2, 3, 3, dilation=3, padding=2), (2, 15, 12)),
    "wide kernel": (lambda: conv(2, 3, (1, 7), padding=(0, 3)), (2, 5, 33)),
    "high kernel": (lambda: conv(2, 3, (5, 1), padding=(4, 0)), (2, 5, 33)),
    "groups": (lambda: conv(6, 4, 3, padding=1, groups=2), (6, 9, 9)),
    "depthwise": (lambda: conv(5, 10, 3, groups=5, stride=2), (5, 9, 9)),
    "1×1": (lambda: conv(7, 9, 1), (7, 6, 6)),
    "1×1 stride 2": (lambda: conv(7, 9, 1, stride=2, bias=False), (7, 7, 5)),
    "1×1 map": (lambda: conv(7, 9, 1), (7, 1, 1)),
    "1×1 map padded": (lambda: conv(3, 9, 3, padding=1), (3, 1, 1)),
    "whole": (lambda: conv(3, 9, 4), (3, 4, 4)),
    "one row": (lambda: conv(2, 3, 3, padding=1), (2, 1, 40)),
    "one column": (lambda: conv(2, 3, 3, padding=1), (2, 40, 1)),
    "one channel": (lambda: conv(1, 1, 3), (1, 5, 5)),
    "larger than its input": (lambda: conv(2, 3, 5, padding=2), (2, 2, 3)),
    "much padding": (lambda: conv(2, 3, 2, padding=4), (2, 3, 3)),
    "stem": (lambda: conv(3, 4, 7, stride=2, padding=3, bias=False), (3, 32, 32)),
    "pooled": (lambda: sequence(nn.Conv2d(3, 5, 3), nn.MaxPool2d(2), nn.ReLU()), (3, 12, 12)),
    "pooled odd": (lambda: sequence(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)), (3, 13, 9)),
    "pooled large": (lambda: sequence(nn.Conv2d(2, 3, 5), nn.ReLU(), nn.MaxPool2d(2)), (2, 36, 36)),
    "pooled strided": (lambda: sequence(nn.Conv2d(2, 3, 3, 2, 1), nn.MaxPool2d(2, 2)), (2, 19, 22)),
    "pooled to one": (lambda: sequence(nn.Conv2d(2, 3, 1), nn.MaxPool2d(2)), (2, 2, 2)),
}

NETWORKS: dict[str, Made] = {
    "functional": (Functional, (3, 24, 24)),
    "viewed": (lambda: Viewed(lambda x: x.view(x.size(0), -1)), (2, 6, 7)),
    "viewed by shape": (lambda: Viewed(lambda x: x.view(x.shape[0], -1)), (2, 6, 7)),
    "reshaped": (lambda: Viewed(lambda x: x.reshape(-1, 100)), (2, 6, 7)),
    "mean": (lambda: Viewed(lambda x: x.mean((2, 3)), 5), (2, 6, 7)),
    "mean kept": (lambda: Viewed(lambda x: x.mean(dim=[-1, -2], keepdim=True).flatten(1), 5), (2, 17, 13)),
    "basic blocks": (
        lambda: ResNet(BasicBlock(8, 8), BasicBlock(8, 12, 2), nn.Sequential(BasicBlock(12, 12)), features=12),
        (3, 33, 41),
    ),
    "bottlenecks": (
        lambda: ResNet(Bottleneck(8, 4), Bottleneck(16, 6, 2, groups=2), Bottleneck(24, 6), features=24),
        (3, 32, 32),
    ),
    "pre-activation": (
        lambda: sequence(
            nn.Conv2d(3, 4, 3, padding=1, bias=False), PreActivation(4, 4), PreActivation(4, 8, 2),
            nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        ),
        (3, 12, 9),
    ),
    "option A": (
        lambda: sequence(OptionA(3, 1, 2), OptionA(6, 3, 0), OptionA(9, 0, 1, 3), OptionA(10, 2, 2, 1)),
        (3, 25, 19),
    ),
    "separable": (lambda: sequence(nn.Conv2d(1, 6, 3), Separable(6), Separable(6)), (1, 11, 10)),
    "diamond": (Diamond, (4, 9, 11)),
    "residual at once": (lambda: Residual(nn.Conv2d(3, 3, 3, padding=1)), (3, 8, 9)),
    "residual last": (lambda: Residual(nn.Conv2d(3, 3, 3, padding=1)), (3, 16, 16)),
    "residual in place": (
        lambda: sequence(nn.Conv2d(3, 4, 3), nn.ReLU(), Residual(nn.Conv2d(4, 4, 3, padding=1), in_place=True)),
        (3, 8, 9),
    ),
    "sizes as numbers": (SizesAsNumbers, (3, 8, 9)),
    "shared": (Shared, (3, 7, 18)),
    "pools": (
        lambda: sequence(
            nn.Conv2d(2, 6, 3), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1), nn.ReLU(),
            nn.AvgPool2d((2, 3), (1, 2), (0, 1)), nn.MaxPool2d((1, 2)),
        ),
        (2, 29, 38),
    ),
    "means": (
        lambda: sequence(nn.Conv2d(2, 6, 3), nn.AvgPool2d(5, 3, 2), nn.AvgPool2d(2, count_include_pad=False)),
        (2, 13, 22),
    ),
    "adaptive": (lambda: sequence(nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten()), (2, 10, 11)),
    "adaptive as it is": (lambda: sequence(nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d((None, 9))), (2, 10, 11)),
    "pooled twice": (lambda: sequence(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), nn.ReLU(), nn.MaxPool2d(2)), (2, 19, 23)),
    "means go on": (
        lambda: sequence(
            nn.Conv2d(2, 9, 3), nn.AdaptiveAvgPool2d(1), nn.ReLU(), nn.Conv2d(9, 5, 1), nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(5, 3, 1), nn.ReLU(), nn.Flatten(),
        ),
        (2, 8, 8),
    ),
    "pool first": (lambda: sequence(nn.MaxPool2d(2), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3)), (2, 12, 13)),
    "norm first": (lambda: sequence(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3, padding=1)), (2, 5, 6)),
    "nothing between": (
        lambda: sequence(
            nn.Identity(), nn.Conv2d(2, 3, 3, bias=False), nn.Dropout2d(), nn.BatchNorm2d(3, affine=False),
            nn.Identity(), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Flatten(), nn.Identity(),
            nn.Linear(60, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.AlphaDropout(), nn.Linear(7, 2), nn.ReLU(),
        ),
        (2, 6, 7),
    ),
    "to an image": (
        lambda: sequence(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1)), (1, 17, 13),
    ),
    "nested": (
        lambda: sequence(
            nn.Sequential(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()), nn.Sequential()),
            nn.Sequential(nn.MaxPool2d(2), nn.Sequential(nn.Flatten(), nn.Linear(27, 4))),
        ),
        (2, 8, 9),
    ),
    "flattened last": (lambda: sequence(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten()), (2, 6, 6)),
    "flattened compact": (lambda: sequence(nn.Conv2d(2, 3, 3), nn.Flatten()), (2, 6, 6)),
    "mean last": (lambda: sequence(nn.Conv2d(2, 17, 3), nn.AdaptiveAvgPool2d(1)), (2, 6, 6)),
}  # fmt: skip
