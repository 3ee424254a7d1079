"""Which networks the sparse engine trains: chains of convolutions, ReLU, pools and dense layers, read from a module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from tombola.kernels.choices import POOL
from tombola.kernels.packing import MOST_COLUMNS
from tombola.kernels.windows import Window
from tombola.training.gradients import linear_chain

Named = tuple[str, nn.Module]


@dataclass(frozen=True)
class Link:
    """A layer with weights; of a convolution also what an output sees, the pool behind it included."""

    module: nn.Linear | nn.Conv2d
    window: Window | None = None


class NoChainError(Exception):
    """Why a network is no chain, in words that follow "the engine sparse"."""


def read_chain(model: nn.Module) -> list[Link]:
    """The layers of a Sequential of [Conv2d, ReLU and perhaps MaxPool2d(2)], repeated, Flatten, Linear, ReLU, ...,
    Linear; without convolutions Flatten may be missing. Raises NoChainError for any other.
    """
    names = {id(module): name for name, module in model.named_children()}
    modules = [(names[id(module)], module) for module in model] if type(model) is nn.Sequential else []
    links: list[Link] = []
    while modules and isinstance(modules[0][1], nn.Conv2d):
        link, following = _convolution(modules)
        given = len(links[-1].module.weight) if links else link.module.weight.shape[1]
        if link.module.weight.shape[1] != given:
            raise NoChainError(
                f"cannot train {modules[0][0]}: it reads {link.module.weight.shape[1]} channels and gets {given}"
            )
        links.append(link)
        modules = following
    if not links:
        layers = linear_chain(model)
        if layers is None:
            raise NoChainError("needs convolutions, if any, then a chain of Linear and ReLU layers")
        _check_plain(model)
        return [Link(layer) for layer in layers]
    layers = linear_chain(nn.Sequential(*(module for _, module in modules)))
    if layers is None or not isinstance(modules[0][1], nn.Flatten):
        name = f"{modules[0][0]} " if modules else ""
        raise NoChainError(
            f"needs Flatten after the convolutions, then a chain of Linear and ReLU layers, from {name}on"
        )
    chain = [*links, *map(Link, layers)]
    parameters = [id(parameter) for link in chain for parameter in link.module.parameters()]
    if len(set(parameters)) < len(parameters):
        raise NoChainError("needs layers that have no parameters in common")
    _check_plain(model)
    return chain


def _check_plain(model: nn.Module) -> None:
    """Raises NoChainError for what kernels would pass over: hooks, and parameters that are not to be trained."""
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
            raise NoChainError(f"cannot train {name or 'the model'}: it has hooks")
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            raise NoChainError(f"cannot train {name}: it has no gradient")


def check_size(chain: Sequence[Link], shape: Sequence[int]) -> None:
    """Raises NoChainError for images of which a kernel cannot count the positions, borders included."""
    windows = [link.window for link in chain if link.window is not None]
    if not windows or len(shape) != 3:  # no images at all are another matter
        return
    size = shape[1], shape[2]
    for window in windows:
        border = 2 * max(window.kernel)
        if (size[0] + border) * (size[1] + border) >= MOST_COLUMNS:
            raise NoChainError(f"cannot train on images of {shape[1]} × {shape[2]}: it counts to {MOST_COLUMNS}")
        size = window.outputs(*size)


def _convolution(modules: Sequence[Named]) -> tuple[Link, list[Named]]:
    """The convolution that comes first, and what follows it, its ReLU and its pool."""
    (name, module), *rest = modules
    assert isinstance(module, nn.Conv2d)
    if not rest or type(rest[0][1]) is not nn.ReLU:
        found = f", not {type(rest[0][1]).__name__}" if rest else ""
        raise NoChainError(f"needs a ReLU right after {name}{found}")
    pool = 1
    _, *rest = rest
    if rest and type(rest[0][1]) is nn.MaxPool2d:
        (pool_name, pooling), *rest = rest
        _check_pool(pool_name, pooling)
        pool = POOL
    return Link(module, _window(name, module, pool)), rest


def _window(name: str, module: nn.Conv2d, pool: int) -> Window:
    if type(module) is not nn.Conv2d:
        raise NoChainError(f"cannot train {name}: it is a {type(module).__name__}")
    for what, pair in (("stride", module.stride), ("dilation", module.dilation)):
        if tuple(pair) != (1, 1):
            raise NoChainError(f"cannot train {name}: its {what} is {tuple(pair)}")
    if module.groups != 1:
        raise NoChainError(f"cannot train {name}: it has {module.groups} groups")
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise NoChainError(f"cannot train {name}: its padding is not a number of zeros")
    kernel, padding = _pair(module.kernel_size), _pair(module.padding)
    if padding[0] >= kernel[0] or padding[1] >= kernel[1]:
        raise NoChainError(f"cannot train {name}: it is padded with {padding}, as much as its window {kernel} or more")
    return Window(kernel, padding=padding, pool=pool)


def _check_pool(name: str, pool: nn.Module) -> None:
    sizes = [getattr(pool, what) for what in ("kernel_size", "stride", "padding", "dilation")]
    if [_pair(size) for size in sizes] != [(POOL, POOL), (POOL, POOL), (0, 0), (1, 1)] or pool.ceil_mode:
        raise NoChainError(f"needs pools of 2 × 2 that do not overlap, which {name} is not")
    if pool.return_indices:
        raise NoChainError(f"cannot train {name}: it returns indices")


def _pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
