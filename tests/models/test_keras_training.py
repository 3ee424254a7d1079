"""What a `.keras` file says of training is kept or said; what its inputs and its layers are is never guessed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_networks import L, functional, keras, lenet, saved, vgg_base
from tombola.errors import ModelError
from tombola.models.keras_models import read_keras
from tombola.models.pretrained import read_base


def said_of(model: Any, folder: Path) -> tuple[float, str]:
    path = saved(model, folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read = read_keras(path)
    sentences = [str(warning.message) for warning in caught]
    assert all(sentence.startswith(f"{path}: ") and "\n" not in sentence for sentence in sentences)
    return read.dropout, " | ".join(sentences)


def dense(*layers: Any) -> Any:
    return functional((4,), [*layers, L.Dense(3, activation="softmax", name="output")])


SAID: dict[str, tuple[Callable[[], Any], float, tuple[str, ...]]] = {
    "one share": (lambda: dense(L.Dense(6, "relu"), L.Dropout(0.5)), 0.5, ()),
    "an activation between": (lambda: dense(L.Dense(6), L.ReLU(), L.Dropout(0.5)), 0.5, ()),
    "several shares": (
        lambda: dense(
            *(L.Dense(6, "relu"), L.Dropout(0.5, name="one"), L.Dense(5, "relu"), L.Dropout(0.3, name="two")),
        ),
        0.0,
        ("dropout", "one (0.5), two (0.3)"),
    ),
    "a place of its own": (
        lambda: dense(L.Dropout(0.2, name="first"), L.Dense(6, "relu"), L.Dropout(0.5, name="kept")),
        0.5,
        ("dropout", "first (0.2)"),
    ),
    "no share": (lambda: dense(L.Dense(6, "relu"), L.Dropout(0.0)), 0.0, ()),
    "regularisers": (
        lambda: dense(L.Dense(6, "relu", kernel_regularizer="l2", name="held")),
        0.0,
        ("regularisers and constraints are left out: held",),
    ),
    "constraints": (
        lambda: dense(L.Dense(6, "relu", bias_constraint="non_neg", name="held")),
        0.0,
        ("regularisers and constraints are left out: held",),
    ),
    "activity": (
        lambda: dense(L.Dense(6, "relu", activity_regularizer="l1", name="held")),
        0.0,
        ("regularisers and constraints are left out: held",),
    ),
    "frozen": (
        lambda: dense(L.Dense(6, "relu", trainable=False, name="ice")),
        0.0,
        ("layers that were frozen are trained: ice",),
    ),
    "half precision": (
        lambda: dense(L.Dense(6, "relu", dtype="mixed_float16")),
        0.0,
        ("float32, in the file in: mixed_float16",),
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_training_is_kept_or_said(case: str, tmp_path: Path) -> None:
    make, dropout, parts = SAID[case]
    found, said = said_of(make(), tmp_path)
    assert found == dropout
    assert bool(said) == bool(parts), said
    for part in parts:
        assert part in said


@pytest.mark.parametrize("layer", [L.GaussianNoise(0.1), L.GaussianDropout(0.1), L.ActivityRegularization(0.1)])
def test_other_layers_of_training_are_refused_by_name(layer: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"layer {layer.name} is a {type(layer).__name__}"):
        read_keras(saved(dense(L.Dense(6, "relu"), layer), tmp_path))


@pytest.mark.parametrize("scale", [1 / 65535, 1 / 1000, 1 / 16, 0.5])
def test_a_scale_of_other_inputs_than_ours_is_refused(scale: float, tmp_path: Path) -> None:
    path = saved(functional((28, 28, 1), [L.Rescaling(scale, name="scale"), *lenet()]), tmp_path)
    with pytest.raises(ModelError, match=r"layer scale: rescales by .*neither from 0 to 255"):
        read_keras(path)


@pytest.mark.parametrize("scale", [1 / 255, 1 / 256, 1 / 127.5, 1 / 58, 1.0, 2.0, 1 / 0.3])
def test_scales_of_ours_are_known(scale: float, tmp_path: Path) -> None:
    found = read_keras(saved(functional((28, 28, 1), [L.Rescaling(scale), *lenet()]), tmp_path))
    factor = 255 if scale < 0.1 else 1
    assert found.normalisation.std == pytest.approx((1 / (scale * factor),), rel=1e-6)


def test_a_normalization_of_deep_pixels_is_refused(tmp_path: Path) -> None:
    layer = L.Normalization(name="deep")
    layer.adapt(np.random.default_rng(0).integers(0, 65536, (50, 28, 28, 1)).astype(np.float32))
    with pytest.raises(ModelError, match="layer deep: its mean or deviation of"):
        read_keras(saved(functional((28, 28, 1), [layer, *lenet()]), tmp_path))


@pytest.mark.parametrize("change", ["pool", "strides", "norm", "activation", "missing pool"])
def test_a_base_is_vgg16_by_what_it_computes_and_not_by_names(change: str, tmp_path: Path) -> None:
    layers = vgg_base()
    if change == "pool":
        layers[2] = L.AveragePooling2D(2, name="block1_pool")
    elif change == "strides":
        layers[1] = L.Conv2D(4, 3, 2, padding="same", activation="relu", name="block1_conv2")
    elif change == "norm":
        layers.insert(1, L.BatchNormalization(name="between"))
    elif change == "activation":
        layers[1] = L.Conv2D(4, 3, padding="same", activation="sigmoid", name="block1_conv2")
    else:
        del layers[2]
    path = saved(functional((64, 64, 3), layers), tmp_path)
    with pytest.raises(ModelError, match=r"VGG16 has|block1_pool|block1_conv2|between"):
        read_base(path, preprocessing="none")
    assert keras.__version__
