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
from tombola.models.vgg16_keras import vgg16_keras
from tombola.registry import Registry


@dataclass(frozen=True)
class Architecture:
    """A network up to input shape, classes and widths.

    `build` is (input_shape, classes, widths) -> module with uninitialised weights, and takes a fraction of `dropout`
    after its dense layers, too, where it `drops_out`. `widths` are its own; their number is free where `variable`.
    `smallest` is the least height and width of the images it takes, None for a network that flattens inputs of any
    shape.
    """

    build: Callable[..., nn.Module]
    widths: tuple[int, ...]
    description: str
    variable: bool = False
    smallest: int | None = None
    drops_out: bool = False

    def check_widths(self, name: str, widths: Sequence[int]) -> None:
        """Raises ValueError where the number of `widths` does not fit."""
        if self.variable and not widths:
            raise ValueError(f"{name} takes at least one width, such as {list(self.widths)}")
        if not self.variable and len(widths) != len(self.widths):
            raise ValueError(f"{name} takes {len(self.widths)} widths, such as {list(self.widths)}, not {len(widths)}")

    def check_dropout(self, name: str, dropout: float) -> None:
        """Raises ValueError where there are no dense layers to drop out from."""
        if dropout and not self.drops_out:
            raise ValueError(f"{name} has no hidden dense layers to drop out from; leave dropout out")

    def make(self, input_shape: Sequence[int], classes: int, widths: Sequence[int], dropout: float) -> nn.Module:
        """The network, its weights not yet initialised."""
        options = {"dropout": dropout} if self.drops_out else {}
        return self.build(input_shape, classes, widths, **options)

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
        lenet_300_100,
        (300, 100),
        "fully connected, one hidden layer per width; LeCun et al. 1998",
        variable=True,
        drops_out=True,
    ),
    "head": Architecture(
        lenet_300_100,
        (256, 128),
        "fully connected, on the features of a frozen base: fc1, fc2, output",
        variable=True,
        drops_out=True,
    ),
    "lenet5": Architecture(
        lenet5,
        (6, 16, 120, 84),
        "two 5×5 convolutions, two dense layers; LeCun et al. 1998",
        smallest=16,
        drops_out=True,
    ),
    "lenet5-caffe": Architecture(
        lenet5,
        (20, 50, 500),
        "two 5×5 convolutions, one dense layer; Caffe's, pruned by Han et al. 2015",
        smallest=16,
        drops_out=True,
    ),
    "conv2": Architecture(
        conv,
        (64, 64, 256, 256),
        "two 3×3 convolutions, two dense layers; Frankle & Carbin 2019",
        smallest=2,
        drops_out=True,
    ),
    "conv4": Architecture(
        conv,
        (64, 64, 128, 128, 256, 256),
        "four 3×3 convolutions, two dense layers; Frankle & Carbin 2019",
        smallest=4,
        drops_out=True,
    ),
    "conv6": Architecture(
        conv,
        (64, 64, 128, 128, 256, 256, 256, 256),
        "six 3×3 convolutions, two dense layers; Frankle & Carbin 2019",
        smallest=8,
        drops_out=True,
    ),
    "resnet20": Architecture(
        resnet20, (16, 32, 64), "nineteen 3×3 convolutions with batch norm and shortcuts; He et al. 2016", smallest=1
    ),
    "vgg16-keras": Architecture(
        vgg16_keras,
        (64, 128, 256, 512, 512, 256, 128),
        "VGG16 by Keras's layer names, no batch norm; Simonyan & Zisserman 2015",
        smallest=32,
        drops_out=True,
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
