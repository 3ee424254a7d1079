"""Weights of VGG16's convolutions in files, by the names of `vgg16-keras`, with the preprocessing that they want.

Nothing is downloaded, nothing in a file is executed, and no preprocessing is guessed. Published are torchvision's
`vgg16-397923af.pth` and the two files of Keras's applications.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile, zip_longest
from pathlib import Path

import torch
from torch import Tensor

from tombola.errors import ModelError, counted
from tombola.models.hdf5 import Hdf5File
from tombola.models.keras_archive import KerasLayer, read_layers
from tombola.models.keras_inputs import IN_FRONT, channels_of, normalisation_of
from tombola.models.keras_layouts import from_keras
from tombola.models.keras_models import read_keras
from tombola.models.keras_steps import RELU, Step, keras_steps
from tombola.models.spec import Normalisation
from tombola.models.tensors import SIZE_LIMIT
from tombola.models.vgg16_keras import STAGES
from tombola.models.weights import read_weights
from tombola.registry import suggest
from tombola.runs.atomic import opened, read_bytes, storage_errors

PREPROCESSINGS = {
    "keras": "bytes, blue first, less ImageNet's mean of each channel",
    "torchvision": "red first, in [0, 1], by ImageNet's mean and deviation",
    "none": "red first, in [0, 1] and no more",
}
"""How images were prepared for the network whose weights a file holds, in words."""
_CHOICES = ", ".join(f"{name} ({words})" for name, words in PREPROCESSINGS.items())

IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""torchvision's: red, green and blue of inputs in [0, 1]."""
BYTE_MEANS = Normalisation(mean=tuple(mean / 255 for mean in (123.68, 116.779, 103.939)), std=(1 / 255,) * 3)
"""Keras's for VGG16 (its mode `caffe`) as inputs in [0, 1] want it: means of bytes go off, nothing is divided."""

PUBLISHED_MD5 = {
    "vgg16_weights_tf_dim_ordering_tf_kernels.h5": "64373286793e3c8b2b4e3219cbf3544b",
    "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5": "6d6bbae143d832006294945121d1f1fc",
}
"""As keras.applications.vgg16 checks its own downloads."""
PUBLISHED_PREPROCESSING = {"vgg16-397923af.pth": "torchvision", **dict.fromkeys(PUBLISHED_MD5, "keras")}
"""Of the files that have a published name, and its checksum."""
NAMES = tuple(f"block{block}_conv{number}" for block, count in enumerate(STAGES, 1) for number in range(1, count + 1))
_OURS = re.compile(r"block\d+_conv\d+")
_TORCHVISION = re.compile(r"features\.(\d+)\.(weight|bias)")


@dataclass(frozen=True)
class BaseWeights:
    """Convolutions as `block1_conv1.weight` and `.bias`, (out, in, height, width) and (out,), in the network's order.

    They take inputs in [0, 1], red first, as `normalisation` leaves them. `source` says in words what this is.
    """

    weights: dict[str, Tensor]
    normalisation: Normalisation
    source: str


def read_base(path: Path, sha256: str | None = None, preprocessing: str | None = None) -> BaseWeights:
    """The convolutions of a VGG16 in a file; dense layers are left aside. Any widths and number of layers will do.

    `.pth`, `.pt`, `.bin` and `.safetensors` have torchvision's names (`features.0.weight`) or those of `vgg16-keras`,
    `.h5` a group of each layer's name, `.keras` layers of these names, or of any in the same order.

    `preprocessing` is one of PREPROCESSINGS, and is believed. Without it a published file, known by its name and its
    checksum, has its makers', and a `.keras` file that of the Rescaling and Normalization layers in front; any other
    file must be given one: networks of the same names were trained in every way. Keras's blue, green and red become our
    red, green and blue by turning round the inputs of the first convolution: the same function.

    With `sha256` (hex) the file must have that checksum; files with a published name must have their published one.
    Raises ModelError in one line.
    """
    if preprocessing is not None and preprocessing not in PREPROCESSINGS:
        raise ModelError(f"{path}: no preprocessing {preprocessing!r:.60}{suggest(preprocessing, PREPROCESSINGS)}")
    _check_sums(path, sha256)
    preprocessing = preprocessing or PUBLISHED_PREPROCESSING.get(path.name)
    own: Normalisation | None = None
    if path.suffix == ".keras":
        weights, own = _of_keras(path, preprocessing is not None)
    elif path.suffix in (".h5", ".hdf5"):
        weights = _of_hdf5(path)
    else:
        weights = _of_torch(path)
    _check(path, weights)
    if preprocessing is not None:
        return _bound(path, weights, preprocessing)
    if own is None:
        raise ModelError(
            f"{path}: does not say how images were prepared for these weights; give preprocessing, one of " + _CHOICES
        )
    said = "the normalisation of its first layers" if own != Normalisation() else "inputs in [0, 1]"
    return BaseWeights(weights, own, f"{path.name}, {said}")


def _bound(path: Path, weights: dict[str, Tensor], preprocessing: str) -> BaseWeights:
    """`weights` with the preprocessing of that name."""
    first = next(name for name in weights if name.endswith(".weight"))
    if preprocessing == "none":
        return BaseWeights(weights, Normalisation(), f"{path.name}, inputs in [0, 1]")
    if weights[first].shape[1] != 3:
        raise ModelError(
            f"{path}: {first} takes {counted(weights[first].shape[1], 'channel')}, "
            f"{preprocessing}'s preprocessing is for red, green and blue"
        )
    if preprocessing == "torchvision":
        return BaseWeights(weights, IMAGENET, f"{path.name}, torchvision's mean and standard deviation of each channel")
    turned = weights | {first: weights[first].flip(1)}  # Keras's take blue first
    return BaseWeights(turned, BYTE_MEANS, f"{path.name}, Keras's mean of each channel (turned to red first)")


def _check_sums(path: Path, sha256: str | None) -> None:
    promised = re.search(r"-([0-9a-f]{8})\.pth$", path.name)  # as torchvision names its files
    with storage_errors("read", path):
        if sha256 is not None or promised:
            found = _digest(path, "sha256")
            if sha256 is not None and found != sha256.lower():
                raise ModelError(f"{path}: its SHA-256 is {found}, not {sha256:.64}; get the file again")
            if promised and not found.startswith(promised[1]):
                raise ModelError(f"{path}: its name says a SHA-256 of {promised[1]}..., it is {found}; get it again")
        if (known := PUBLISHED_MD5.get(path.name)) and (found := _digest(path, "md5")) != known:
            raise ModelError(f"{path}: its MD5 is {found}, that of the published file {known}; get the file again")


def _digest(path: Path, algorithm: str) -> str:
    with opened(path) as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _of_torch(path: Path) -> dict[str, Tensor]:
    found = read_weights(path)
    if ours := {name: tensor for name, tensor in found.items() if _OURS.fullmatch(name.partition(".")[0])}:
        return _ordered(ours)
    theirs = {(int(match[1]), match[2]): t for name, t in found.items() if (match := _TORCHVISION.fullmatch(name))}
    if odd := [number for (number, kind), tensor in theirs.items() if kind == "weight" and tensor.dim() != 4]:
        raise ModelError(
            f"{path}: features.{odd[0]}.weight is of no convolution; VGG16 with batch norm is another network"
        )
    numbers = sorted({number for number, _ in theirs})
    if not numbers:
        raise ModelError(f"{path}: holds no layers called {NAMES[0]} or features.0, this is no VGG16")
    if len(numbers) > len(NAMES):
        raise ModelError(f"{path}: holds {len(numbers)} convolutions, VGG16 has {len(NAMES)}")
    named = dict(zip(numbers, NAMES, strict=False))
    return _ordered({f"{named[number]}.{kind}": tensor for (number, kind), tensor in theirs.items()})


def _of_keras(path: Path, preprocessing_given: bool) -> tuple[dict[str, Tensor], Normalisation | None]:
    """The weights and, where it is wanted, the normalisation of the layers in front; None where none normalises."""
    layers = read_layers(path, chain=False)
    convolutions = [layer for layer in layers if layer.kind == "Conv2D" and _OURS.fullmatch(layer.name)]
    weights: dict[str, Tensor] = {}
    try:
        if convolutions:
            front = layers[: layers.index(convolutions[0])]
            _check_body(layers[layers.index(convolutions[0]) :], convolutions)
            for layer in convolutions:
                weights |= _of_arrays(layer.name, layer.variables())
        else:
            front = list(takewhile(lambda layer: layer.kind in IN_FRONT, layers))
            weights = _of_other_names(path)
        return _ordered(weights), None if preprocessing_given else _normalisation_in_front(front)
    except ModelError as error:
        raise ModelError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RuntimeError) as error:
        raise ModelError(f"{path}: its layers are damaged ({type(error).__name__}: {error})") from None


def _check_body(layers: Sequence[KerasLayer], convolutions: Sequence[KerasLayer]) -> None:
    """That what lies between the convolutions is VGG16's: its names alone do not say what a network computes."""
    end = layers.index(convolutions[-1]) + 1
    end += sum(1 for _ in takewhile(lambda layer: layer.kind in ("Activation", "ReLU"), layers[end:]))
    found = [step for step in keras_steps(layers[:end], (1, 1, 1)) if step[0] != "dropout"]
    wanted: list[Step] = []
    for before, layer in zip([None, *convolutions], convolutions, strict=False):
        if before is not None and before.name.partition("_")[0] != layer.name.partition("_")[0]:
            wanted.append(("max pool", (2, 2), (2, 2)))
        filters, bias = layer.config.get("filters"), layer.config.get("use_bias")
        wanted += [("convolution", filters, (3, 3), (1, 1), (1, 1), (1, 1), 1, bias), RELU]
    for there, expected in zip_longest(found, wanted):
        if there != expected:
            raise ModelError(f"its layers are named as VGG16's, but have {there} where VGG16 has {expected}")


def _of_other_names(path: Path) -> dict[str, Tensor]:
    """Of a `.keras` file that is a VGG16, whatever its layers are called."""
    found = read_keras(path)
    if found.architecture != "vgg16-keras":
        raise ModelError(f"is a {found.architecture} and holds no layers called {NAMES[0]}, this is no VGG16")
    return {name: tensor for name, tensor in found.weights.items() if name.partition(".")[0] in NAMES}


def _normalisation_in_front(layers: Sequence[KerasLayer]) -> Normalisation | None:
    if odd := next((layer for layer in layers if layer.kind not in IN_FRONT), None):
        raise ModelError(
            f"layer {odd.name}, a {odd.kind:.60}, prepares the images; give preprocessing yourself, one of {_CHOICES}"
        )
    normalising = [layer for layer in layers if layer.kind != "InputLayer"]
    if not normalising:
        return None
    return normalisation_of(normalising, (channels_of(layers[0]), 1, 1))  # whatever the sides: they may be left open


def _of_hdf5(path: Path) -> dict[str, Tensor]:
    """Keras 3 labels the group of a layer's variables; older versions call the group itself by the layer's name."""
    file = Hdf5File(read_bytes(path, SIZE_LIMIT), str(path))
    layers: dict[str, list[str]] = {}
    for entry in file.walk():
        _, _, name = entry.rpartition("/")
        label = file.label(entry) if name == "vars" else name
        if label and _OURS.fullmatch(label) and label not in layers:
            layers[label] = [array for array in file.walk(entry) if not file.names(array)]
    if not layers:
        raise ModelError(f"{path}: holds no layers called {NAMES[0]} and so on, this is no VGG16 of Keras")
    weights: dict[str, Tensor] = {}
    for name, arrays in layers.items():
        weights |= _of_arrays(name, [file.tensor(array) for array in arrays], f"{path}: ")
    return _ordered(weights)


def _of_arrays(name: str, arrays: list[Tensor], where: str = "") -> dict[str, Tensor]:
    """A kernel and perhaps a bias, known by their axes: their names have changed from version to version."""
    kernels = [array for array in arrays if array.dim() == 4]
    biases = [array for array in arrays if array.dim() == 1]
    if len(kernels) != 1 or len(biases) > 1 or len(arrays) != len(kernels) + len(biases):
        raise ModelError(
            f"{where}{name} has arrays of {[tuple(a.shape) for a in arrays]}, wanted are a kernel and a bias"
        )
    return {f"{name}.weight": from_keras(kernels[0])} | {f"{name}.bias": bias for bias in biases}


def _ordered(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In the order of the network, each weight before its bias."""

    def place(name: str) -> tuple[list[int], bool]:
        return [int(number) for number in re.findall(r"\d+", name)], name.endswith(".bias")

    return {name: weights[name] for name in sorted(weights, key=place)}


def _check(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Every convolution takes what the one before it gives, and has a bias for each of its outputs; all is float32."""
    before: tuple[str, int] | None = None
    for name, tensor in weights.items():
        if tensor.dtype != torch.float32 or not tensor.isfinite().all():
            raise ModelError(f"{path}: {name} of {tensor.dtype} holds no finite numbers of float32")
        layer, _, kind = name.partition(".")
        if kind == "weight" and tensor.dim() == 4:
            if before and tensor.shape[1] != before[1]:
                raise ModelError(
                    f"{path}: {layer} takes {tensor.shape[1]} channels, {before[0]} before it gives {before[1]}"
                )
            before = layer, len(tensor)
        elif kind != "bias" or before is None or before[0] != layer or tensor.shape != (before[1],):
            raise ModelError(f"{path}: {name} of shape {tuple(tensor.shape)} is no weight or bias of a convolution")
