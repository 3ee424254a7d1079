"""`.keras` files that Keras wrote, read without it into architectures of the zoo."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from keras_networks import Chain, L, functional, keras, lenet, saved, sequential, vgg_base, vgg_head
from tombola.errors import ModelError
from tombola.models import ModelSpec, build
from tombola.models.keras_archive import KerasLayer
from tombola.models.keras_models import KerasModel, read_keras
from tombola.models.keras_steps import keras_steps
from tombola.models.spec import Normalisation
from tombola.pruning import prune


def rebuilt(read: KerasModel) -> nn.Module:
    spec = ModelSpec(
        architecture=read.architecture,
        widths=read.widths,
        dropout=read.dropout,
        input_shape=read.input_shape,
        classes=read.classes,
        normalisation=read.normalisation,
        seed=0,
    )
    model = build(spec)
    model.load_state_dict(read.weights)
    return model.eval()


def probabilities(read: KerasModel, pixels: np.ndarray) -> torch.Tensor:
    """Of the model read, for pixels in [0, 1] as Keras lays them out."""
    inputs = torch.from_numpy(pixels).movedim(-1, 1)
    shape = [-1 if axis == 1 else 1 for axis in range(inputs.dim())]
    mean, std = (torch.tensor(values).view(shape) for values in (read.normalisation.mean, read.normalisation.std))
    with torch.no_grad():
        return rebuilt(read)((inputs - mean) / std).softmax(1)


def assert_same(model: Any, read: KerasModel, factor: float = 1.0) -> None:
    """Whether both say the same of the same images; the Keras model takes pixels times `factor`."""
    shape = model.input_shape[1:]
    pixels = np.random.default_rng(1).random((5, *shape), dtype=np.float32)
    theirs = torch.from_numpy(np.array(model.predict(pixels * factor, verbose=0)))
    if theirs.shape[1] == 1:
        theirs = torch.cat([1 - theirs, theirs], 1)
    assert len(theirs.unique()) > 5
    torch.testing.assert_close(probabilities(read, pixels), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [functional, sequential])
def test_the_pipeline_of_cats_and_dogs(make: Callable[..., Any], tmp_path: Path) -> None:
    model = make((64, 32, 3), [L.Rescaling(1 / 255), *vgg_base(), *vgg_head()])
    for layer in model.layers[:-6]:
        layer.trainable = False
    model.compile("adam", "binary_crossentropy")
    read = read_keras(saved(model, tmp_path))
    assert (read.architecture, read.widths) == ("vgg16-keras", (4, 5, 6, 7, 8, 12, 9))
    assert (read.input_shape, read.classes, read.dropout) == ((3, 64, 32), 2, 0.5)
    assert read.normalisation == Normalisation()
    assert_same(model, read, factor=255)


def test_one_sigmoid_is_two_logits_that_mirror_each_other(tmp_path: Path) -> None:
    model = functional((32, 32, 1), vgg_base() + vgg_head())
    read = read_keras(saved(model, tmp_path))
    kernel, bias = (torch.from_numpy(np.array(w)) for w in model.get_layer("output").get_weights())
    assert torch.equal(read.weights["output.weight"], torch.stack([-kernel[:, 0] / 2, kernel[:, 0] / 2]))
    assert torch.equal(read.weights["output.bias"], torch.tensor([-bias / 2, bias / 2]))
    z = torch.linspace(-30, 30, 601, dtype=torch.float64)
    both = torch.stack([-z / 2, z / 2], 1).softmax(1)
    torch.testing.assert_close(both[:, 1], z.sigmoid(), atol=0, rtol=1e-14)


@pytest.mark.parametrize("make", [functional, sequential])
@pytest.mark.parametrize("end", ["softmax", "linear", "a layer", "sigmoid"])
def test_the_users_lenet(make: Callable[..., Any], end: str, tmp_path: Path) -> None:
    ends = {
        "softmax": [L.Dense(3, activation="softmax", name="output")],
        "linear": [L.Dense(3, name="output")],
        "a layer": [L.Dense(3, name="output"), L.Activation("softmax")],
        "sigmoid": [L.Dense(1, name="output"), L.Activation("sigmoid")],
    }[end]
    model = make((28, 30, 1), lenet()[:-1] + ends)
    read = read_keras(saved(model, tmp_path))
    assert (read.architecture, read.widths, read.dropout) == ("lenet5", (6, 16, 20, 12), 0.25)
    assert (read.input_shape, read.classes) == ((1, 28, 30), 2 if end == "sigmoid" else 3)
    assert list(read.weights) == [
        f"{layer}.{kind}"
        for layer in ("conv_1", "conv_2", "dense_1", "dense_2", "output")
        for kind in ("weight", "bias")
    ]
    if end != "linear":
        assert_same(model, read)


def test_a_network_that_was_read_is_pruned(tmp_path: Path) -> None:
    model = rebuilt(read_keras(saved(functional((28, 28, 1), lenet()), tmp_path)))
    assert prune(model, 0.5).sparsity == pytest.approx(0.5, abs=1e-3)


def test_layers_of_no_names_and_activations_apart(tmp_path: Path) -> None:
    """Keras's own names: conv2d, conv2d_1, ...; their numbers go on from model to model, those in the file do not."""
    layers = [
        *(L.Conv2D(3, 3, padding="same"), L.ReLU(), L.ZeroPadding2D(1), L.Conv2D(4, 3), L.Activation("relu")),
        *(L.MaxPooling2D(2), L.Dropout(0.1), L.Flatten(), L.Dense(8), L.ReLU(), L.Dense(7, "relu"), L.Dense(4)),
    ]
    model = sequential((9, 11, 3), [*layers, L.Softmax()])
    read = read_keras(saved(model, tmp_path))
    assert (read.architecture, read.widths, read.dropout) == ("conv2", (3, 4, 8, 7), 0.0)
    assert_same(model, read)


def test_a_base_within_a_model(tmp_path: Path) -> None:
    base = functional((32, 32, 3), vgg_base())
    base.trainable = False
    inputs = keras.Input((32, 32, 3))
    outputs = base(L.Rescaling(1 / 127.5, offset=-1)(inputs), training=False)
    for layer in vgg_head():
        outputs = layer(outputs)
    model = keras.Model(inputs, outputs)
    read = read_keras(saved(model, tmp_path))
    assert read.architecture == "vgg16-keras"
    assert read.normalisation == Normalisation(mean=(0.5,), std=(0.5,))
    assert_same(model, read, factor=255)


def test_dense_layers_on_images_on_rows_and_on_features(tmp_path: Path) -> None:
    for shape, ours in (((4, 5, 2), (2, 4, 5)), ((4, 5), (1, 4, 5)), ((7,), (7,))):
        flat = [L.Flatten()] if len(shape) > 1 else []
        model = sequential(shape, [*flat, L.Dense(6, "relu"), L.Dense(3, "softmax")])
        read = read_keras(saved(model, tmp_path))
        assert (read.architecture, read.widths, read.input_shape) == ("lenet-300-100", (6,), ours)
        if len(shape) != 2:
            assert_same(model, read)


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5, 1e-7])
def test_batch_norm_of_another_epsilon(epsilon: float, tmp_path: Path) -> None:
    counts, layers = (1, 1, 2, 2, 2), []
    for count in counts:
        for _ in range(count):
            layers += [L.Conv2D(4, 3, padding="same", use_bias=False), L.BatchNormalization(epsilon=epsilon), L.ReLU()]
        layers.append(L.MaxPooling2D())
    model = functional((32, 32, 1), [*layers, L.GlobalAveragePooling2D(), L.Dense(3, "softmax")])
    read = read_keras(saved(model, tmp_path))
    assert (read.architecture, read.widths) == ("vgg11", (4,) * 5)
    assert_same(model, read)


def adapted(largest: float = 1) -> Any:
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(0).random((50, 28, 28, 3)).astype(np.float32) * largest)
    return layer


FRONTS: dict[str, tuple[Callable[[], Chain], float, Normalisation | None]] = {
    "bytes": (lambda: [L.Rescaling(1 / 255)], 255, Normalisation()),
    "bytes to ±1": (lambda: [L.Rescaling(1 / 127.5, offset=-1)], 255, Normalisation(mean=(0.5,), std=(0.5,))),
    "[0, 1] to ±1": (lambda: [L.Rescaling(2.0, offset=-1)], 1, Normalisation(mean=(0.5,), std=(0.5,))),
    "numbers": (
        lambda: [L.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.04, 0.09, 0.25])],
        1,
        Normalisation(mean=(0.1, 0.2, 0.3), std=(0.2, 0.3, 0.5)),
    ),
    "one number": (
        lambda: [L.Normalization(axis=None, mean=0.5, variance=0.25)],
        1,
        Normalisation(mean=(0.5,), std=(0.5,)),
    ),
    "numbers of [0, 1] at their largest": (
        lambda: [L.Normalization(mean=[0, 1, 1], variance=[1, 1, 0.01])],
        1,
        Normalisation(mean=(0, 1, 1), std=(1, 1, 0.1)),
    ),
    "numbers of bytes": (
        lambda: [L.Normalization(mean=[127.5, 0, 51], variance=[51.0**2, 0.51**2, 25.5**2])],
        255,
        Normalisation(mean=(0.5, 0, 0.2), std=(0.2, 0.002, 0.1)),
    ),
    "a deviation of bytes": (
        lambda: [L.Normalization(axis=None, mean=0.0, variance=51.0**2)],
        255,
        Normalisation(mean=(0.0,), std=(0.2,)),
    ),
    "adapted to bytes": (lambda: [adapted(255)], 255, None),
    "adapted to dark bytes": (lambda: [adapted(5)], 255, None),
    "adapted behind a scale": (lambda: [L.Rescaling(2.0), adapted(2)], 1, None),
    "adapted": (lambda: [adapted()], 1, None),
    "both": (lambda: [L.Rescaling(1 / 255), adapted()], 255, None),
}


@pytest.mark.parametrize("front", FRONTS)
def test_what_comes_in_front(front: str, tmp_path: Path) -> None:
    make, factor, wanted = FRONTS[front]
    model = functional((28, 28, 3), make() + lenet())
    read = read_keras(saved(model, tmp_path))
    if wanted is not None:
        assert read.normalisation.mean == pytest.approx(wanted.mean, abs=1e-12)
        assert read.normalisation.std == pytest.approx(wanted.std, rel=1e-12)
    assert_same(model, read, factor)


def test_features_may_have_any_mean(tmp_path: Path) -> None:
    """Those of a base are neither bytes nor in [0, 1]."""
    model = functional((7,), [L.Normalization(mean=[40.0] * 7, variance=[9.0] * 7), L.Dense(6, "relu"), L.Dense(3)])
    assert read_keras(saved(model, tmp_path)).normalisation == Normalisation(mean=(40.0,) * 7, std=(3.0,) * 7)


ANOTHER: dict[str, tuple[Callable[[], Any], str]] = {
    "average pools": (
        lambda: functional((28, 28, 1), [lenet()[0], L.AveragePooling2D(2, name="mean_1"), *lenet()[2:]]),
        "layer mean_1 is a AveragePooling2D; supported are: Input, Rescaling and Normalization in front, Conv2D",
    ),
    "tanh": (
        lambda: sequential((28, 28, 1), [L.Conv2D(6, 5, activation="tanh", name="conv_1"), *lenet()[1:]]),
        "layer conv_1 is a Conv2D whose activation is 'tanh'; input should be 'linear', 'relu', 'softmax' or 'sigmoid'",
    ),
    "leaky": (
        lambda: sequential((28, 28, 1), [L.Conv2D(6, 5), L.ReLU(negative_slope=0.1, name="leaky"), *lenet()[1:]]),
        "layer leaky is a ReLU whose negative_slope is 0.1",
    ),
    "strides": (
        lambda: functional((28, 28, 1), [L.Conv2D(6, 5, 2, activation="relu"), L.Conv2D(6, 5), *lenet()[4:]]),
        r"architecture: convolution 6 of \(5, 5\), strides \(2, 2\), padding \(0, 0\), ReLU, .* supported are: l",
    ),
    "even kernels, same": (
        lambda: functional((28, 28, 1), [L.Conv2D(6, 4, padding="same", activation="relu"), *lenet()[1:]]),
        "another architecture",
    ),
    "pools of pooled sides": (
        lambda: functional((28, 28, 1), [lenet()[0], L.MaxPooling2D(padding="same", name="up"), *lenet()[2:]]),
        "layer up is a MaxPooling2D whose padding is 'same'",
    ),
    "dense on images": (
        lambda: sequential((4, 4, 2), [L.Dense(3, "relu"), L.Flatten(), L.Dense(2, "softmax")]),
        "another architecture: dense 3, ReLU, flatten, dense 2",
    ),
    "no bias": (lambda: sequential((4,), [L.Dense(3, "relu", use_bias=False), L.Dense(2)]), "another architecture"),
    "one output": (lambda: sequential((4,), [L.Dense(3, "relu"), L.Dense(1)]), "one output without a sigmoid"),
    "several sigmoids": (lambda: sequential((4,), [L.Dense(3, "relu"), L.Dense(2, "sigmoid")]), "several outputs"),
    "softmax between": (lambda: sequential((4,), [L.Dense(3, "softmax"), L.Dense(2)]), "another architecture"),
    "open sides": (
        lambda: functional((None, None, 3), [L.Conv2D(4, 3), L.GlobalAveragePooling2D(), L.Dense(2)]),
        r"takes inputs of \[None, None, None, 3\]; wanted are",
    ),
    "nothing": (lambda: functional((4,), [L.Dropout(0.1)]), "another architecture"),
    "channels first": (
        lambda: sequential(
            (1, 28, 28), [L.Flatten(data_format="channels_first", name="f"), L.Dense(3, "relu"), L.Dense(2)]
        ),
        "layer f is a Flatten whose data_format is 'channels_first'",
    ),
}


@pytest.mark.parametrize("case", ANOTHER)
def test_another_architecture_is_named(case: str, tmp_path: Path) -> None:
    make, said = ANOTHER[case]
    path = saved(make(), tmp_path)
    with pytest.raises(ModelError, match=said) as caught:
        read_keras(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def residual() -> Any:
    inputs = keras.Input((6,))
    first = L.Dense(6, "relu")(inputs)
    return keras.Model(inputs, L.Dense(2)(L.Add(name="plus")([first, inputs])))


def two_inputs() -> Any:
    inputs = [keras.Input((6,)), keras.Input((6,))]
    return keras.Model(inputs, L.Dense(2)(L.Concatenate()(inputs)))


def two_outputs() -> Any:
    inputs = keras.Input((6,))
    first = L.Dense(6, "relu")(inputs)
    return keras.Model(inputs, [first, L.Dense(2)(first)])


def shared() -> Any:
    inputs = keras.Input((6,))
    layer = L.Dense(6, "relu", name="twice")
    return keras.Model(inputs, L.Dense(2)(layer(layer(inputs))))


def always_training() -> Any:
    inputs = keras.Input((6,))
    return keras.Model(inputs, L.Dense(2)(L.Dropout(0.5, name="drop")(L.Dense(6, "relu")(inputs), training=True)))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (residual, "layer plus does not take the outputs of the layer before it and nothing else"),
        (two_inputs, "does not take the outputs of the layer before it"),
        (two_outputs, "its output is not that of its last layer"),
        (shared, "layer twice does not take"),
        (always_training, "layer drop is always in training mode"),
    ],
)
def test_graphs_that_are_no_chain(make: Callable[[], Any], said: str, tmp_path: Path) -> None:
    path = saved(make(), tmp_path)
    with pytest.raises(ModelError, match=said):
        read_keras(path)


def test_keras_is_not_imported_to_read(tmp_path: Path) -> None:
    path = saved(functional((28, 28, 1), lenet()), tmp_path)
    code = (
        "import sys, pathlib\nfrom tombola.models.keras_models import read_keras\n"
        "assert 'h5py' not in sys.modules\n"
        f"read_keras(pathlib.Path({str(path)!r}))\nassert 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, (1, 1)), (5, 1, (2, 2)), (1, 1, (0, 0)), (4, 1, "same"), (3, 2, "same")]
)
def test_same_is_a_padding_of_ours_where_both_sides_are_alike(kernel: int, stride: int, padding: object) -> None:
    config = L.Conv2D(6, kernel, strides=stride, padding="same", name="c").get_config()
    layer = KerasLayer("c", "Conv2D", config, "layers/conv2d", weights=None)  # type: ignore[arg-type]
    assert keras_steps([layer], (1, 9, 9))[0][4] == padding
