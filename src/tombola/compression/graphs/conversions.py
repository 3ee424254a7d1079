"""What modules and functions become: each makes a node, or joins what it does to the node before.

Batch norm is folded into the convolution before it, ReLU, a 2×2 max pool and the sum of a residual block become part of
it. Whatever has no node is an `UnsupportedError` with its reason.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from tombola.compression.graphs.builder import Builder, name_of
from tombola.compression.graphs.nodes import (
    MOST_READS,
    Combine,
    Convolution,
    Dense,
    Flatten,
    Mean,
    Pool,
    Shape,
    Shortcut,
)
from tombola.compression.graphs.symbolic import (
    UnsupportedError,
    is_leaf,
    shape_of,
)
from tombola.compression.layers import IDENTITIES, affine_of, layer_of, norm_after
from tombola.kernels.pools import PoolKind
from tombola.kernels.windows import Pair, Window

FUSED_POOL = 2
"""The pool that a convolution does in registers: four windows at a time."""


def pair(numbers: Any) -> Pair:
    """One number for height and width, or one for each."""
    found = (numbers, numbers) if isinstance(numbers, int) else tuple(numbers)
    if len(found) != 2 or any(type(number) is not int for number in found):
        raise UnsupportedError(f"{numbers!r} where one or two whole numbers are expected")
    return found


def _convolution(build: Builder, step: fx.Node, module: nn.Conv2d) -> int:
    name = build.names[id(module)]
    if module.weight.dtype != torch.float32 or module.padding_mode != "zeros" or not module.weight.numel():
        raise UnsupportedError(f"{name}: Conv2d ({module.weight.dtype}, padding {module.padding_mode})")
    window = Window(pair(module.kernel_size), pair(module.stride), _padding(module), pair(module.dilation))
    layer = layer_of(name, module, build.keeps.get(id(module.weight)))
    if module.bias is not None and module.bias.dtype != torch.float32:
        raise UnsupportedError(f"{name}: Conv2d ({module.bias.dtype})")
    return build.add(Convolution((build.input(step),), shape_of(step), layer, window, module.groups))


def _padding(module: nn.Conv2d) -> Pair:
    if module.padding == "valid":
        return (0, 0)
    if module.padding == "same":
        reach = [d * (k - 1) for d, k in zip(pair(module.dilation), pair(module.kernel_size), strict=True)]
        if any(total % 2 for total in reach):
            raise UnsupportedError("Conv2d (padding 'same' that differs from side to side)")
        return reach[0] // 2, reach[1] // 2
    return pair(module.padding)


def _linear(build: Builder, step: fx.Node, module: nn.Linear) -> int:
    value, name = build.input(step), build.names[id(module)]
    biased = module.bias is None or module.bias.dtype == torch.float32
    if module.weight.dtype != torch.float32 or not biased or not module.weight.numel():
        raise UnsupportedError(f"{name}: Linear ({module.weight.dtype})")
    if len(shape_of(step)) != 1 or len(_shape_of_value(build, step)) != 1:
        raise UnsupportedError(f"{name}: Linear on more than features")
    return build.add(Dense((value,), shape_of(step), layer_of(name, module, build.keeps.get(id(module.weight)))))


def _norm(build: Builder, step: fx.Node, module: nn.BatchNorm2d | nn.BatchNorm1d) -> int:
    value, name = build.input(step), build.names[id(module)]
    if module.running_mean is None or not module.running_mean.is_floating_point():
        raise UnsupportedError(f"{name}: {type(module).__name__} (no stored statistics)")
    if module.training:
        raise UnsupportedError(f"{name}: {type(module).__name__} (in training in spite of eval())")
    norm = affine_of(module)
    node = build.alone(value, Convolution) or build.alone(value, Dense)
    if node is not None and _is_plain(node):
        return build.join(value, replace(node, layer=norm_after(node.layer, norm)))
    return _combined(build, step, (value,), norm.scale.astype(np.float32), norm.shift.astype(np.float32))


def _is_plain(node: Convolution | Dense) -> bool:
    """Nothing was joined to it that comes after its sums."""
    pooled = isinstance(node, Convolution) and (node.window.pool > 1 or len(node.inputs) > 1)
    return not pooled and not node.layer.relu


def _combined(
    build: Builder, step: fx.Node, inputs: tuple[int, ...], scale: Any = None, shift: Any = None, relu: bool = False
) -> int:
    shape = shape_of(step)
    if len(shape) != 3:
        raise UnsupportedError(f"{step.name} behind what is flattened")
    scale = np.ones(shape[0], dtype=np.float32) if scale is None else scale
    shift = np.zeros(shape[0], dtype=np.float32) if shift is None else shift
    return build.add(Combine(inputs, shape, scale, shift, relu))


def _relu(build: Builder, step: fx.Node, module: nn.ReLU | None = None) -> int:
    value = build.input(step)
    in_place = bool(step.kwargs.get("inplace")) if module is None else module.inplace
    build.check_in_place(step, value, in_place or name_of(step).endswith("_"))
    layered = build.alone(value, Convolution) or build.alone(value, Dense)
    if layered is not None:
        return build.join(value, replace(layered, layer=replace(layered.layer, relu=True)))
    combine = build.alone(value, Combine)
    if combine is not None:
        return build.join(value, replace(combine, relu=True))
    return _combined(build, step, (value,), relu=True)


def _add(build: Builder, step: fx.Node) -> int:
    if len(step.args) != 2 or any(value not in (None, 1) for value in step.kwargs.values()):
        raise UnsupportedError("a sum of other than two values")
    values = build.input(step, 0), build.input(step, 1)
    build.check_in_place(step, values[0], name_of(step) in ("add_", "iadd"))
    shapes = {_shape_of_value(build, step, 0), _shape_of_value(build, step, 1)}
    if len(shapes) > 1 or values[0] == values[1]:
        raise UnsupportedError("a sum of values of different shapes, or of one value with itself")
    for own, other in (values, values[::-1]):
        node = build.alone(own, Convolution)
        if node is not None and _is_plain(node):
            return build.join(own, replace(node, inputs=(*node.inputs, other)))
    return _combined(build, step, values)


def _max_pool(build: Builder, step: fx.Node, module: nn.MaxPool2d | None = None) -> int:
    size, given = _pool_arguments(build, step, module, {"dilation": 1, "return_indices": False, "ceil_mode": False})
    if given["return_indices"] or given["ceil_mode"] or pair(given["dilation"]) != (1, 1):
        raise UnsupportedError("MaxPool2d (dilation, ceil_mode or return_indices)")
    value, window = build.input(step), size
    node = build.alone(value, Convolution)
    fused = Window((FUSED_POOL,) * 2, (FUSED_POOL,) * 2)
    if node is not None and window == fused and node.window.pool == 1 and len(node.inputs) == 1:
        pooled = replace(node.window, pool=FUSED_POOL)
        return build.join(value, replace(node, window=pooled, shape=shape_of(step)))
    return _pool(build, step, PoolKind.MAX, window)


def _mean_pool(build: Builder, step: fx.Node, module: nn.AvgPool2d | None = None) -> int:
    default = {"ceil_mode": False, "count_include_pad": True, "divisor_override": None}
    window, given = _pool_arguments(build, step, module, default)
    uneven = not given["count_include_pad"] and window.padding != (0, 0)
    if given["ceil_mode"] or given["divisor_override"] is not None or uneven:
        raise UnsupportedError("AvgPool2d (ceil_mode, divisor_override, or a padding that does not count)")
    return _pool(build, step, PoolKind.MEAN, window)


def _pool_arguments(
    build: Builder, step: fx.Node, module: nn.Module | None, default: Mapping[str, Any]
) -> tuple[Window, dict[str, Any]]:
    """The window of a pool, called as a module or as a function, and its further arguments."""
    names = ["kernel_size", "stride", "padding", *default]
    given: dict[str, Any] = {"stride": None, "padding": 0, **default}
    if module is not None:
        given |= {name: getattr(module, name) for name in names}
    else:
        arguments, named = build.arguments(step)
        given |= dict(zip(names, arguments[1:], strict=False)) | named
    if "kernel_size" not in given:
        raise UnsupportedError(f"{step.name} without a kernel size")
    kernel = pair(given["kernel_size"])
    stride = given["stride"]
    window = Window(kernel, kernel if stride in (None, []) else pair(stride), pair(given["padding"]))
    return window, given


def _pool(build: Builder, step: fx.Node, kind: PoolKind, window: Window) -> int:
    shape = shape_of(step)
    if math.prod(window.kernel) * math.prod(shape[1:]) > MOST_READS:
        raise UnsupportedError(f"a pool of {window.kernel[0]} × {window.kernel[1]} in so many places")
    return build.add(Pool((build.input(step),), shape, kind, window))


def _adaptive_pool(build: Builder, step: fx.Node, module: nn.AdaptiveAvgPool2d | None = None) -> int:
    value, shape = build.input(step), shape_of(step)
    before = _shape_of_value(build, step)
    if shape[1:] == (1, 1):
        return build.add(Mean((value,), shape))
    if before[1] % shape[1] or before[2] % shape[2]:
        raise UnsupportedError("AdaptiveAvgPool2d to what does not divide its input")
    kernel = before[1] // shape[1], before[2] // shape[2]
    return build.add(Pool((value,), shape, PoolKind.MEAN, Window(kernel, kernel)))


def _mean(build: Builder, step: fx.Node) -> int:
    arguments, named = build.arguments(step)
    axes = arguments[1] if len(arguments) > 1 else named.get("dim")
    before = _shape_of_value(build, step)
    if not isinstance(axes, list | tuple) or len(before) != 3 or {axis % 4 for axis in axes} != {2, 3}:
        raise UnsupportedError("a mean over other axes than height and width")
    value = build.add(Mean((build.input(step),), (before[0], 1, 1)))
    return value if len(shape_of(step)) == 3 else build.add(Flatten((value,), shape_of(step)))


def _flatten(build: Builder, step: fx.Node, module: nn.Flatten | None = None) -> int:
    """Flatten, or view and reshape that come to the same."""
    value, shape, before = build.input(step), shape_of(step), _shape_of_value(build, step)
    if module is not None and (module.start_dim, module.end_dim) != (1, -1):
        raise UnsupportedError("Flatten of some axes")
    if shape == before:
        return value
    if len(shape) != 1:
        raise UnsupportedError("a view that does not flatten")
    return build.add(Flatten((value,), shape))


def _identity(build: Builder, step: fx.Node, module: nn.Module | None = None) -> int:
    if module is None:
        active = step.args[2] if len(step.args) > 2 else step.kwargs.get("training", True)
    else:
        active = module.training and type(module) is not nn.Identity
    if active:
        raise UnsupportedError(f"{step.name}: dropout in evaluation")
    return build.input(step)


def _subsampled(build: Builder, step: fx.Node) -> int:
    """x[:, :, ::step, ::step]."""
    index = build.arguments(step)[0][1]
    whole, steps = slice(None, None, None), set()
    if not isinstance(index, tuple) or len(index) != 4 or index[:2] != (whole, whole):
        raise UnsupportedError("an index that is not [:, :, ::step, ::step]")
    for part in index[2:]:
        regular = isinstance(part, slice) and part.start in (None, 0) and part.stop is None
        steps.add((part.step or 1) if regular else None)
    if len(steps) != 1 or not isinstance(stride := steps.pop(), int) or stride < 1:
        raise UnsupportedError("an index that is not [:, :, ::step, ::step]")
    return build.add(Shortcut((build.input(step),), shape_of(step), stride, 0))


PAD = ("pad", "mode", "value")


def _padded(build: Builder, step: fx.Node) -> int:
    """Channels of zeros before and behind."""
    arguments, named = build.arguments(step)
    given = {"mode": "constant", "value": None, **dict(zip(PAD, arguments[1:], strict=False)), **named}
    widths = given["pad"]
    plain = given["mode"] == "constant" and given["value"] in (None, 0)
    if not plain or len(widths) != 6 or any(widths[:4]) or min(widths[4:]) < 0:
        raise UnsupportedError("a pad that does not add channels of zeros")
    value, shape = build.input(step), shape_of(step)
    shortcut = build.alone(value, Shortcut)
    if shortcut is not None and shortcut.before == 0:
        return build.join(value, replace(shortcut, shape=shape, before=widths[4]))
    return build.add(Shortcut((value,), shape, 1, widths[4]))


def _shape_of_value(build: Builder, step: fx.Node, number: int = 0) -> Shape:
    argument = step.args[number]
    assert isinstance(argument, fx.Node)
    return shape_of(argument)


MODULES: Mapping[type[nn.Module], Callable[..., int]] = {
    nn.Conv2d: _convolution,
    nn.Linear: _linear,
    nn.BatchNorm2d: _norm,
    nn.BatchNorm1d: _norm,
    nn.ReLU: _relu,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _mean_pool,
    nn.AdaptiveAvgPool2d: _adaptive_pool,
    nn.Flatten: _flatten,
    **dict.fromkeys(IDENTITIES, _identity),
}


def may_be_traced(module: nn.Module) -> bool:
    """Whether there are nodes for modules of this type at all; of those that go on inside nothing is known."""
    return not is_leaf(module) or type(module) in MODULES


FUNCTIONS: Mapping[Any, Callable[[Builder, fx.Node], int]] = {
    **dict.fromkeys((functional.relu, torch.relu, torch.relu_, functional.relu_, "relu", "relu_"), _relu),
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _add),
    **dict.fromkeys((functional.max_pool2d, torch.max_pool2d), _max_pool),
    functional.avg_pool2d: _mean_pool,
    functional.adaptive_avg_pool2d: _adaptive_pool,
    **dict.fromkeys((torch.mean, "mean"), _mean),
    **dict.fromkeys((torch.flatten, "flatten", "view", "reshape", torch.reshape), _flatten),
    functional.dropout: _identity,
    operator.getitem: _subsampled,
    functional.pad: _padded,
}
