"""What the model of a `.keras` file takes: the shape of its inputs, and the layers in front that normalise them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tombola.errors import ModelError, counted
from tombola.models.keras_archive import KerasLayer
from tombola.models.spec import Normalisation

IN_FRONT = ("InputLayer", "Rescaling", "Normalization")
BYTES = 255
BYTE_SCALE = 1 / 16
"""A Rescaling by less than this is of inputs from 0 to 255, as by 1/255 or 1/127.5."""
LEAST_SCALE = 0.9
"""Inputs in [0, 1] are scaled by this or more, bytes by this over 255 or more; anything else is of other inputs."""
LARGEST_OF_BYTES = 255
LARGEST_OF_SCALED = 1
"""Images in [0, 1] have no mean or deviation above this; a Normalization that has one was adapted to bytes."""
SMALLEST_DEVIATION = 1e-7
"""Keras's, below which it does not divide."""

Values = NDArray[np.float64]


def input_shape_of(layer: KerasLayer) -> tuple[int, ...]:
    """The shape of inputs as torch lays them out: (channels, height, width), or (features,)."""
    shape = layer.config.get("batch_shape")
    sizes = shape[1:] if isinstance(shape, list) else []
    if not all(isinstance(size, int) and 0 < size < 1 << 31 for size in sizes) or len(sizes) not in (1, 2, 3):
        raise ModelError(
            f"layer {layer.name}: takes inputs of {shape!s:.60}; wanted are (None, height, width, channels) or "
            "(None, features), all sizes given"
        )
    if len(sizes) == 1:
        return (sizes[0],)
    height, width, channels = sizes if len(sizes) == 3 else (*sizes, 1)
    return channels, height, width


def channels_of(layer: KerasLayer) -> int:
    """The channels of images whose sides may be left open."""
    shape = layer.config.get("batch_shape")
    channels = shape[-1] if isinstance(shape, list) and len(shape) == 4 else None
    if not isinstance(channels, int) or not 0 < channels < 1 << 31:
        raise ModelError(
            f"layer {layer.name}: takes inputs of {shape!s:.60}; wanted are (None, height, width, channels), the "
            "channels given"
        )
    return channels


def normalisation_of(layers: Sequence[KerasLayer], shape: Sequence[int]) -> Normalisation:
    """What Rescaling and Normalization layers do to inputs in [0, 1], as (input - mean) / std.

    A first Rescaling by as little as 1/255 says that the file's inputs go from 0 to 255; so does a first Normalization
    of images with a mean or deviation above 1. Features may have any. Raises ModelError for one number per something
    that is no channel.
    """
    mean, std, in_bytes = np.zeros(1), np.ones(1), False
    for layer in layers:
        if layer.kind == "Rescaling":
            scale, offset = _numbers(layer, "scale"), _numbers(layer, "offset")
            _check_channels(layer, shape, scale, offset)
            if scale.min() <= 0:
                raise ModelError(f"layer {layer.name}: rescales by {scale.min():g}, wanted is a number above 0")
            in_bytes = in_bytes or (layer is layers[0] and _scales_bytes(layer, scale))
            mean, std = mean - offset * std / scale, std / scale
        elif layer.kind == "Normalization":
            middle, deviation = _of_normalization(layer)
            _check_channels(layer, shape, middle, deviation)
            largest = max(middle.max(), deviation.max())
            if layer is layers[0] and len(shape) == 3 and largest > LARGEST_OF_BYTES:
                raise ModelError(
                    f"layer {layer.name}: its mean or deviation of {largest:g} is of inputs beyond bytes, and images "
                    "are read as bytes; save a model for inputs from 0 to 255 or 0 to 1"
                )
            in_bytes = in_bytes or (layer is layers[0] and len(shape) == 3 and bool(largest > LARGEST_OF_SCALED))
            mean, std = mean + middle * std, std * deviation
    if in_bytes:
        mean, std = mean / BYTES, std / BYTES
    mean, std = np.broadcast_arrays(mean, std)
    if not mean.any() and (std == 1).all():
        return Normalisation()
    return Normalisation(mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def _scales_bytes(layer: KerasLayer, scale: Values) -> bool:
    """Whether a first Rescaling is of bytes, by its size; ModelError where its inputs are neither these nor [0, 1]."""
    if (scale >= LEAST_SCALE).all():
        return False
    if (scale >= LEAST_SCALE / BYTES).all() and (scale < BYTE_SCALE).all():
        return True
    raise ModelError(
        f"layer {layer.name}: rescales by {scale.min():g}, which is of inputs neither from 0 to 255 (by 1/255 or "
        "1/127.5) nor from 0 to 1 (by 1 or more): images are read as bytes; save a model for one of these"
    )


def _of_normalization(layer: KerasLayer) -> tuple[Values, Values]:
    """Mean and deviation, from the config or, where the layer was adapted to data, from the variables."""
    if layer.config.get("invert") or layer.config.get("axis") not in (None, -1, 3, [-1], [3], []):
        raise ModelError(f"layer {layer.name}: is inverted, or normalises along another axis than the channels'")
    if layer.config.get("mean") is None:
        variables = layer.variables(2)  # the third counts batches
        if len(variables) != 2:
            raise ModelError(f"layer {layer.name}: was never adapted to data and has no mean")
        mean, variance = (variable.double().numpy().reshape(-1) for variable in variables)
    else:
        mean, variance = _numbers(layer, "mean"), _numbers(layer, "variance")
    if variance.min() < 0:
        raise ModelError(f"layer {layer.name}: has a variance below 0")
    return mean, np.maximum(np.sqrt(variance), SMALLEST_DEVIATION)


def _check_channels(layer: KerasLayer, shape: Sequence[int], *values: Values) -> None:
    if odd := [len(numbers) for numbers in values if len(numbers) not in (1, shape[0])]:
        raise ModelError(f"layer {layer.name}: has {odd[0]} numbers for inputs of {counted(shape[0], 'channel')}")


def _numbers(layer: KerasLayer, option: str) -> Values:
    """One number, or a list of them, of a layer's config."""
    given: Any = layer.config.get(option)
    if isinstance(given, dict):  # an array, as Keras serialises it
        given = given.get("config", {}).get("value") if isinstance(given.get("config"), dict) else None
    try:
        values = np.asarray(given, dtype=np.float64).reshape(-1)
    except (ValueError, TypeError, OverflowError):
        values = np.empty(0)
    if not len(values) or not np.isfinite(values).all():
        raise ModelError(f"layer {layer.name}: its {option} is {given!s:.60}, wanted are numbers")
    return values
