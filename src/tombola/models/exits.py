"""Exits: the places where a chain of layers can be left, by name, and the network cut there."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from tombola.errors import ConfigError
from tombola.models.vgg import CONVOLUTIONS
from tombola.registry import suggest

POOLS = (nn.MaxPool2d, nn.AvgPool2d)
FOLLOWERS = (nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU)
"""What belongs to the layer before it: Keras's convolutions have their activation inside."""


@dataclass(frozen=True)
class Exit:
    """The activation behind a layer: of a network's modules the first `length` have run.

    `name` is the exit's as it was asked for, `layer` the module's own.
    """

    name: str
    layer: str
    length: int


def find_exit(model: nn.Module, name: str) -> Exit:
    """The exit at layer `name`: a part of the network, or `blockI_convJ` and `blockI_pool` of a VGG.

    Norms and activations directly behind the layer belong to it. Raises ConfigError, which lists the exits, for a
    layer that is not there or gives no images, and for a network that is no plain `nn.Sequential`.
    """
    layers = layers_of(model)
    known = exit_names(model)
    if not known:
        raise ConfigError(f"no exit {name!r}: this network has no convolution before its dense layers")
    layer = _keras_names(model).get(name, name)
    names = list(layers)
    if layer not in names:
        raise ConfigError(f"no exit {name!r} in this network{suggest(name, known)}")
    if layer not in _images(layers):
        raise ConfigError(f"no exit at {name!r}, whose output is no image{suggest(name, known)}")
    length = names.index(layer) + 1
    while length < len(names) and isinstance(layers[names[length]], FOLLOWERS):
        length += 1
    return Exit(name, layer, length)


def exit_names(model: nn.Module) -> list[str]:
    """The convolutions (or parts that hold some) and pools before the dense layers; by Keras's names for a VGG."""
    images = _images(layers_of(model))
    found = [name for name, part in images.items() if isinstance(part, POOLS) or _holds_convolution(part)]
    keras = {layer: name for name, layer in _keras_names(model).items()}
    return [keras.get(name, name) for name in found] if any(map(_holds_convolution, images.values())) else []


def default_exits(model: nn.Module) -> list[str]:
    """The last convolution of each block; a block ends with a pool, or is a part of several layers itself."""
    found: list[str] = []
    last: str | None = None
    keras = {layer: name for name, layer in _keras_names(model).items()}
    for name, part in _images(layers_of(model)).items():
        if isinstance(part, POOLS) or (_holds_convolution(part) and not isinstance(part, nn.Conv2d)):
            found += [last] if last else []
            last = None
        if _holds_convolution(part):
            last = keras.get(name, name)
    return [*found, last] if last else found


def prefix(model: nn.Module, exit: Exit) -> nn.Sequential:
    """What runs up to the exit. It shares its modules with `model`, whose parameters have the same names in it."""
    return nn.Sequential(OrderedDict(list(layers_of(model).items())[: exit.length]))


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """The parts of a network that does nothing but call them in turn; a part may have several names."""
    if not isinstance(model, nn.Sequential) or type(model).forward is not nn.Sequential.forward:
        raise ConfigError(f"exits need a network that is a plain torch.nn.Sequential, not a {type(model).__name__}")
    return {name: part for name, part in model._modules.items() if part is not None}


def _images(layers: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The parts before the first that flattens or is dense."""
    found = {}
    for name, part in layers.items():
        if any(isinstance(module, (nn.Flatten, nn.Linear)) for module in part.modules()):
            break
        found[name] = part
    return found


def _keras_names(model: nn.Module) -> dict[str, str]:
    """Keras's name -> the layer's own, where the network has a VGG's blocks, or is one that was cut; else nothing."""
    images = _images(layers_of(model))
    blocks, behind = _blocks(images)
    if not _is_vgg(images, blocks, behind):
        return {}
    names = {}
    for block, (convolutions, pool) in enumerate([*blocks, (behind, "")], start=1):
        for number, layer in enumerate(convolutions, start=1):
            names[f"block{block}_conv{number}"] = layer
        if pool:
            names[f"block{block}_pool"] = pool
    return names


def _is_vgg(images: dict[str, nn.Module], blocks: list[tuple[list[str], str]], behind: list[str]) -> bool:
    """Whether a VGG begins with these blocks and then has the convolutions `behind`.

    Conv-4 and others begin as a VGG does: without all five blocks, every convolution must have batch norm as ours do.
    """
    counts = tuple(len(convolutions) for convolutions, _ in blocks)
    begins = any(
        counts == depth[: len(counts)] and len(behind) <= (*depth, 0)[len(counts)] for depth in CONVOLUTIONS.values()
    )
    parts = list(images.values())
    places = [place for place, part in enumerate(parts) if _holds_convolution(part)]
    if not blocks or not begins or not all(_is_of_vgg(parts[place]) for place in places):
        return False
    followers = [tuple(map(type, parts[place + 1 : place + 3])) for place in places]
    return counts in CONVOLUTIONS.values() or set(followers) == {(nn.BatchNorm2d, nn.ReLU)}


def _is_of_vgg(part: nn.Module) -> bool:
    return isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3) and part.padding in ((1, 1), "same")


def _blocks(images: dict[str, nn.Module]) -> tuple[list[tuple[list[str], str]], list[str]]:
    """(convolutions, the pool behind them) of every block, and the convolutions behind the last pool."""
    blocks, convolutions = [], []
    for name, part in images.items():
        if isinstance(part, nn.Conv2d):
            convolutions.append(name)
        elif isinstance(part, nn.MaxPool2d):
            blocks.append((convolutions, name))
            convolutions = []
    return blocks, convolutions


def _holds_convolution(part: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in part.modules())
