"""The architectures by name: how each is built, its own widths, what it is and which inputs it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from tombola.errors import ModelError
from tombola.models.conv import conv
from tombola.models.lenet import lenet_300_100
from tombola.models.lenet5 import lenet5
from tombola.models.resnet import resnet20
from tombola.models.vgg import CONVOLUTIONS, vgg
from tombola.registry import Registry


@dataclass(frozen=True)
class Architecture:
    """A network up to input shape, classes and widths.

    `build` is (input_shape, classes, widths) -> module with uninitialised weights. `widths` are its own; their
    number is free where `variable`. `smallest` is the least height and width of the images it takes, None for
    a network that flattens inputs of any shape.
    """

    build: Callable[[Sequence[int], int, Sequence[int]], nn.Module]
    widths: tuple[int, ...]
    description: str
    variable: bool = False
    smallest: int | None = None

    def check_widths(self, name: str, widths: Sequence[int]) -> None:
        """Raises ValueError where the number of `widths` does not fit."""
        if self.variable and not widths:
            raise ValueError(f"{name} takes at least one width, such as {list(self.widths)}")
        if not self.variable and len(widths) != len(self.widths):
            raise ValueError(f"{name} takes {len(self.widths)} widths, such as {list(self.widths)}, not {len(widths)}")

    def check_input(self, name: str, shape: Sequence[int]) -> None:
        """Raises ModelError where inputs of `shape` have no height and width or too little of them."""
        if self.smallest is not None and (len(shape) != 3 or min(shape[1:]) < self.smallest):
            raise ModelError(
                f"{name} cannot take inputs of shape {tuple(shape)}: "
                f"it needs (channels, height, width) of at least {self.smallest}×{self.smallest} pixels"
            )


architectures: Registry[Architecture] = Registry("architecture")

for _name, _architecture in {
    "lenet-300-100": Architecture(
        lenet_300_100, (300, 100), "fully connected, one hidden layer per width; LeCun et al. 1998", variable=True
    ),
    "lenet5": Architecture(
        lenet5, (6, 16, 120, 84), "two 5×5 convolutions, two dense layers; LeCun et al. 1998", smallest=16
    ),
    "lenet5-caffe": Architecture(
        lenet5, (20, 50, 500), "two 5×5 convolutions, one dense layer; Caffe's, pruned by Han et al. 2015", smallest=16
    ),
    "conv2": Architecture(
        conv, (64, 64, 256, 256), "two 3×3 convolutions, two dense layers; Frankle & Carbin 2019", smallest=2
    ),
    "conv4": Architecture(
        conv, (64, 64, 128, 128, 256, 256), "four 3×3 convolutions, two dense layers; Frankle & Carbin 2019", smallest=4
    ),
    "conv6": Architecture(
        conv,
        (64, 64, 128, 128, 256, 256, 256, 256),
        "six 3×3 convolutions, two dense layers; Frankle & Carbin 2019",
        smallest=8,
    ),
    "resnet20": Architecture(
        resnet20, (16, 32, 64), "nineteen 3×3 convolutions with batch norm and shortcuts; He et al. 2016", smallest=1
    ),
    **{
        f"vgg{depth}": Architecture(
            partial(vgg, depth=depth),
            (64, 128, 256, 512, 512),
            f"{sum(stages)} 3×3 convolutions with batch norm in five stages; Simonyan & Zisserman 2015",
            smallest=32,
        )
        for depth, stages in CONVOLUTIONS.items()
    },
}.items():
    architectures.register(_name)(_architecture)
