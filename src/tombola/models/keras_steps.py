"""What a layer computes, in one form for torch and for Keras, so that two networks can be compared step by step.

A step is a tuple: its kind, then all that decides what it does beside its weights. Layers of Keras that do more, such
as a convolution with its activation, are several steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from tombola.errors import ModelError
from tombola.models.keras_archive import KerasLayer

Step = tuple[Any, ...]

RELU, SOFTMAX, SIGMOID = ("ReLU",), ("softmax",), ("sigmoid",)
BATCH_NORM, MEAN, FLATTEN = ("batch norm",), ("mean over the image",), ("flatten",)
_ACTIVATIONS: dict[str, list[Step]] = {"linear": [], "relu": [RELU], "softmax": [SOFTMAX], "sigmoid": [SIGMOID]}

Size = Annotated[int, Field(ge=1, lt=1 << 31)]
Activation = Literal["linear", "relu", "softmax", "sigmoid"]


class LayerConfig(BaseModel):
    """What is asked of a layer's config; the rest, such as initialisers and `trainable`, decides nothing here."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, strict=False)


class _OnImages(LayerConfig):
    data_format: Literal["channels_last"] = "channels_last"


class _Conv2D(_OnImages):
    filters: Size
    kernel_size: tuple[Size, Size]
    strides: tuple[Size, Size]
    padding: Literal["valid", "same"]
    dilation_rate: tuple[Size, Size]
    groups: Size
    activation: Activation
    use_bias: bool


class _Dense(LayerConfig):
    units: Size
    activation: Activation
    use_bias: bool


class _BatchNormalization(LayerConfig):
    axis: Literal[-1, 3]
    epsilon: Annotated[float, Field(gt=0)]
    center: Literal[True]
    scale: Literal[True]


class _MaxPooling2D(_OnImages):
    pool_size: tuple[Size, Size]
    strides: tuple[Size, Size]
    padding: Literal["valid"]


class _ZeroPadding2D(_OnImages):
    padding: tuple[tuple[int, int], tuple[int, int]]


class _GlobalAveragePooling2D(_OnImages):
    keepdims: Literal[False]


class _Flatten(_OnImages):
    pass


class _Activation(LayerConfig):
    activation: Activation


class _ReLU(LayerConfig):
    max_value: None
    negative_slope: Literal[0]
    threshold: Literal[0]


class _Softmax(LayerConfig):
    axis: Literal[-1, 1] = -1


class _Dropout(LayerConfig):
    rate: Annotated[float, Field(ge=0, lt=1)]


K = TypeVar("K", bound=LayerConfig)


def config_of(layer: KerasLayer, kind: type[K]) -> K:
    """The part of a layer's config that counts; ModelError names the layer and the option that is not supported."""
    try:
        return kind.model_validate(layer.config)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option, given = ".".join(map(str, first["loc"])), f"{first['input']!r:.60}"
        raise ModelError(
            f"a .keras file of another architecture: layer {layer.name} is a {layer.kind} whose {option} is {given}; "
            f"{first['msg'][0].lower()}{first['msg'][1:]}"
        ) from None


def _conv2d(layer: KerasLayer) -> list[Step]:
    config = config_of(layer, _Conv2D)
    padding: Any = (0, 0)
    if config.padding == "same":
        reach = [(size - 1) * step for size, step in zip(config.kernel_size, config.dilation_rate, strict=True)]
        alike = set(config.strides) == {1} and not any(side % 2 for side in reach)
        padding = tuple(side // 2 for side in reach) if alike else "same"  # which torch pads on one side more
    return [_convolution(config, padding), *_ACTIVATIONS[config.activation]]


def _convolution(config: _Conv2D, padding: Any) -> Step:
    return (
        *("convolution", config.filters, config.kernel_size, config.strides, padding),
        *(config.dilation_rate, config.groups, config.use_bias),
    )


def _dense(layer: KerasLayer) -> list[Step]:
    config = config_of(layer, _Dense)
    return [("dense", config.units, config.use_bias), *_ACTIVATIONS[config.activation]]


def _batch_normalization(layer: KerasLayer) -> list[Step]:
    config_of(layer, _BatchNormalization)
    return [BATCH_NORM]


def _max_pooling(layer: KerasLayer) -> list[Step]:
    config = config_of(layer, _MaxPooling2D)
    return [("max pool", config.pool_size, config.strides)]


def _zero_padding(layer: KerasLayer) -> list[Step]:
    (top, bottom), (left, right) = config_of(layer, _ZeroPadding2D).padding
    return [("padding", (top, left))] if (top, left) == (bottom, right) else [("padding on one side",)]


def _checked(kind: type[LayerConfig], steps: list[Step]) -> Callable[[KerasLayer], list[Step]]:
    def read(layer: KerasLayer) -> list[Step]:
        config_of(layer, kind)
        return steps

    return read


_OF_KERAS: dict[str, Callable[[KerasLayer], list[Step]]] = {
    "Conv2D": _conv2d,
    "Dense": _dense,
    "BatchNormalization": _batch_normalization,
    "MaxPooling2D": _max_pooling,
    "ZeroPadding2D": _zero_padding,
    "GlobalAveragePooling2D": _checked(_GlobalAveragePooling2D, [MEAN]),
    "Flatten": _checked(_Flatten, [FLATTEN]),
    "Activation": lambda layer: _ACTIVATIONS[config_of(layer, _Activation).activation],
    "ReLU": _checked(_ReLU, [RELU]),
    "Softmax": _checked(_Softmax, [SOFTMAX]),
    "Dropout": lambda layer: [("dropout", config_of(layer, _Dropout).rate)],
}


def keras_steps(layers: Sequence[KerasLayer], shape: Sequence[int]) -> list[Step]:
    """The steps of `layers` on inputs of torch's `shape`; ModelError names a layer that is not supported."""
    steps: list[Step] = []
    for layer in layers:
        if layer.kind not in _OF_KERAS:
            raise ModelError(
                f"a .keras file of another architecture: layer {layer.name} is a {layer.kind:.60}; supported are: "
                f"Input, Rescaling and Normalization in front, {', '.join(_OF_KERAS)}"
            )
        steps += _OF_KERAS[layer.kind](layer)
    return _canonical(_padded(steps), shape)


def torch_steps(model: nn.Sequential, shape: Sequence[int]) -> list[Step]:
    """The steps of an architecture of the zoo, of layers without layers inside, on inputs of `shape`."""
    return _canonical((step for module in model for step in _of_torch(module)), shape)


def _of_torch(module: nn.Module) -> list[Step]:
    if isinstance(module, nn.Conv2d):
        sizes = module.kernel_size, module.stride, module.padding, module.dilation
        return [("convolution", module.out_channels, *sizes, module.groups, module.bias is not None)]
    if isinstance(module, nn.Linear):
        return [("dense", module.out_features, module.bias is not None)]
    if isinstance(module, nn.MaxPool2d):
        pair = (module.kernel_size, module.kernel_size), (module.stride, module.stride)
        return [("max pool", *pair)]
    if isinstance(module, nn.Dropout):
        return [("dropout", module.p)]
    plain = {nn.BatchNorm2d: BATCH_NORM, nn.ReLU: RELU, nn.AdaptiveAvgPool2d: MEAN, nn.Flatten: FLATTEN}
    return [plain[type(module)]]


def _padded(steps: Iterable[Step]) -> list[Step]:
    """A padding and the convolution without one that follows are one convolution."""
    merged: list[Step] = []
    for step in steps:
        if merged and merged[-1][0] == "padding" and step[0] == "convolution" and step[4] == (0, 0):
            step = (*step[:4], merged.pop()[1], *step[5:])
        merged.append(step)
    return merged


def _canonical(steps: Iterable[Step], shape: Sequence[int]) -> list[Step]:
    """`steps` without those that flatten what is flat already."""
    flat, kept = len(shape) == 1, []
    for step in steps:
        if step != FLATTEN or not flat:
            kept.append(step)
        flat = flat or step in (MEAN, FLATTEN)
    return kept
