"""The Keras layers that do what torch's do, one kind after another, and the variables they take.

Nothing here imports Keras: it is handed over by whoever did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tombola.errors import ModelError
from tombola.models.keras_layouts import to_keras

Layer = Any
"""A keras.layers.Layer; Keras is not imported here."""
LAST = "channels_last"
"""Said aloud: Keras's own default is a setting of the user."""


def keras_layers(keras: Any, name: str, module: nn.Module) -> list[Layer]:
    """What does in Keras what `module` does, in order; the last layer is called `name` and takes the variables.

    Raises ModelError that names the layer for a module, or an option of one, that has no counterpart.
    """
    make = _MAKERS.get(type(module))  # not a subclass: it may compute something else
    if make is None:
        kinds = ", ".join(kind.__name__ for kind in _MAKERS)
        raise ModelError(
            f"layer {name} is a {type(module).__name__}, which cannot be exported to Keras; these can: {kinds}"
        )
    return make(keras, name, module)


def variables(module: nn.Module, channels: int | None) -> list[Tensor]:
    """The variables of `module`'s Keras layer in Keras's order and layout; `channels` as `to_keras` wants them."""
    if isinstance(module, nn.BatchNorm2d):
        return [module.weight, module.bias, _set(module.running_mean), _set(module.running_var)]
    if isinstance(module, nn.Conv2d | nn.Linear):
        kernel = to_keras(module.weight, channels)
        return [kernel] if module.bias is None else [kernel, module.bias]
    return []


def _convolution(keras: Any, name: str, module: nn.Conv2d) -> list[Layer]:
    _refuse(name, module.padding_mode != "zeros", f"pads with {module.padding_mode}")
    padding, before = module.padding, []
    if isinstance(padding, str):
        mode = padding
    elif _is_same(module):
        mode = "same"
    else:
        mode = "valid"
        if any(padding):
            before = [keras.layers.ZeroPadding2D(padding, data_format=LAST, name=f"{name}_padding")]
    layer = keras.layers.Conv2D(
        module.out_channels,
        module.kernel_size,
        strides=module.stride,
        padding=mode,
        data_format=LAST,
        dilation_rate=module.dilation,
        groups=module.groups,
        use_bias=module.bias is not None,
        name=name,
    )
    return [*before, layer]


def _is_same(module: nn.Conv2d) -> bool:
    """Whether Keras's `same` pads as `module` does: on both sides alike, which it does for stride 1 only."""
    reach = [(size - 1) * step for size, step in zip(module.kernel_size, module.dilation, strict=True)]
    sides = [2 * int(side) for side in module.padding]
    return any(sides) and set(module.stride) == {1} and sides == reach


def _normalisation(keras: Any, name: str, module: nn.BatchNorm2d) -> list[Layer]:
    whole = module.affine and module.track_running_stats and module.momentum is not None
    _refuse(name, not whole, "has no weights, no running statistics or no momentum")
    momentum = 1 - (module.momentum or 0)  # of the old value in Keras, of the new one in torch
    return [keras.layers.BatchNormalization(epsilon=module.eps, momentum=momentum, name=name)]


def _pool(keras: Any, name: str, module: nn.MaxPool2d) -> list[Layer]:
    plain = _pair(module.padding) == (0, 0) and _pair(module.dilation) == (1, 1)
    _refuse(name, not plain or module.ceil_mode or module.return_indices, "pads, dilates, rounds up or gives indices")
    return [
        keras.layers.MaxPooling2D(_pair(module.kernel_size), strides=_pair(module.stride), data_format=LAST, name=name)
    ]


def _mean(keras: Any, name: str, module: nn.AdaptiveAvgPool2d) -> list[Layer]:
    _refuse(name, module.output_size not in (1, (1, 1)), f"makes images of {module.output_size} pixels, not of one")
    return [keras.layers.GlobalAveragePooling2D(data_format=LAST, name=name)]


def _flatten(keras: Any, name: str, module: nn.Flatten) -> list[Layer]:
    _refuse(name, (module.start_dim, module.end_dim) != (1, -1), "flattens a part only")
    return [keras.layers.Flatten(data_format=LAST, name=name)]


def _dense(keras: Any, name: str, module: nn.Linear) -> list[Layer]:
    return [keras.layers.Dense(module.out_features, use_bias=module.bias is not None, name=name)]


_MAKERS: dict[type[nn.Module], Callable[[Any, str, Any], list[Layer]]] = {
    nn.Conv2d: _convolution,
    nn.BatchNorm2d: _normalisation,
    nn.ReLU: lambda keras, name, _: [keras.layers.ReLU(name=name)],
    nn.MaxPool2d: _pool,
    nn.AdaptiveAvgPool2d: _mean,
    nn.Flatten: _flatten,
    nn.Dropout: lambda keras, name, module: [keras.layers.Dropout(module.p, name=name)],
    nn.Linear: _dense,
}


def _refuse(name: str, odd: bool, reason: str) -> None:
    if odd:
        raise ModelError(f"layer {name} {reason}, and cannot be exported to Keras")


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _set(statistic: Tensor | None) -> Tensor:
    assert statistic is not None  # batch norm without statistics was refused
    return statistic
