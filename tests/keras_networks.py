"""Networks that Keras itself makes, as users have them, small; importing this skips tests where Keras is missing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
L = keras.layers
Chain = list[Any]

VGG16 = ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3))


def vgg_base(widths: tuple[int, ...] = (4, 5, 6, 7, 8)) -> Chain:
    return [
        layer
        for (block, count), filters in zip(VGG16, widths, strict=True)
        for layer in (
            *(
                L.Conv2D(filters, 3, padding="same", activation="relu", name=f"block{block}_conv{number}")
                for number in range(1, count + 1)
            ),
            L.MaxPooling2D((2, 2), strides=(2, 2), name=f"block{block}_pool"),
        )
    ]


def vgg_head(end: Any = None) -> Chain:
    return [
        *(L.Flatten(), L.Dense(12, activation="relu", name="fc1"), L.Dropout(0.5)),
        *(L.Dense(9, activation="relu", name="fc2"), L.Dropout(0.5), end or L.Dense(1, "sigmoid", name="output")),
    ]


def lenet(end: Any = None) -> Chain:
    return [
        *(L.Conv2D(6, 5, activation="relu", name="conv_1"), L.MaxPooling2D()),
        *(L.Conv2D(16, 5, activation="relu", name="conv_2"), L.MaxPooling2D(), L.Flatten()),
        *(L.Dense(20, activation="relu", name="dense_1"), L.Dropout(0.25)),
        *(L.Dense(12, activation="relu", name="dense_2"), L.Dropout(0.25)),
        end or L.Dense(3, activation="softmax", name="output"),
    ]


def functional(shape: tuple[int, ...], layers: Chain) -> Any:
    outputs = inputs = keras.Input(shape)
    for layer in layers:
        outputs = layer(outputs)
    return randomised(keras.Model(inputs, outputs))


def sequential(shape: tuple[int, ...], layers: Chain) -> Any:
    return randomised(keras.Sequential([L.Input(shape), *layers]))


def randomised(model: Any) -> Any:
    """Kernels, biases and statistics as after training, none of them 0 or 1, and the same every time."""
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, (L.Dense, L.BatchNormalization, L.Conv2D)):
            layer.set_weights([_drawn(generator, weights.shape) for weights in layer.get_weights()])
    return model


def _drawn(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        return generator.uniform(0.2, 1, shape)
    return generator.normal(0, np.prod(shape[:-1]) ** -0.5, shape)


def saved(model: Any, folder: Path) -> Path:
    path = folder / "model.keras"
    model.save(path)
    return path
