"""A network's twin in Keras: a `.keras` file that is accepted only when it computes what the network does.

Needs the extra `keras`. Keras is an exporter here and nothing else: what reads its files (`keras_models`) does without.
"""

from __future__ import annotations

import copy
import os
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tombola.errors import ModelError, TombolaError
from tombola.models.keras_layers import Layer, keras_layers, variables
from tombola.models.keras_layouts import flattened_channels, to_keras
from tombola.models.spec import Normalisation
from tombola.pruning import Mask
from tombola.runs.atomic import TEMPORARY_SUFFIX, storage_errors, write_bytes

TOLERANCE = 1e-5
EXAMPLES = 16
INPUT, NORMALISATION, PROBABILITIES = "input", "normalisation", "probabilities"


def write_keras(path: Path, model: nn.Module, input_shape: Sequence[int], normalisation: Normalisation) -> float:
    """Writes the Keras twin of `model` to `path`, a `.keras` file, and gives its largest difference from torch.

    `input_shape` is (channels, height, width), or (features,). The twin takes inputs in [0, 1] as Keras lays them
    out, (n, height, width, channels) or (n, features): its first layer normalises them. Its last, `probabilities`, is a
    softmax over the logits of the layer before. Layers have the names they have in `model`.

    The file is read back by Keras and compared with `model` in evaluation mode on 16 random examples: logits and
    probabilities, both relative to the largest logit where that is above 1 (a softmax passes on what logits differ
    by). ModelError, and no file, where one differs by more than 1e-5, where a layer has no twin, and where the extra
    is missing. `model` stays as it is.

    The same model gives the same weights, but not the same bytes: Keras writes the date and addresses of objects.
    """
    if path.suffix != ".keras":
        raise ModelError(f"{path}: Keras reads models by the name's end; call it {path.stem}.keras")
    if type(model) is not nn.Sequential or not len(model):
        raise ModelError(
            f"a {type(model).__name__} has no Keras twin here: only networks whose layers follow one another do, as in "
            "an nn.Sequential"
        )
    keras = _keras()
    state = random.getstate()  # Keras draws seeds from it
    try:
        with torch.random.fork_rng(devices=[]), keras.device("cpu"):
            twin = _twin(keras, model, input_shape, normalisation)
            return _write_if_equal(keras, path, twin, model, input_shape, normalisation)
    except TombolaError:
        raise
    except Exception as error:  # Keras and its backends: any kind, of many lines
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{path}: keras {keras.__version__} on {keras.backend.backend()} cannot make this twin: {reason}"
        ) from None
    finally:
        random.setstate(state)


def keras_masks(
    model: nn.Sequential, input_shape: Sequence[int], masks: Mapping[str, Mask]
) -> dict[str, NDArray[np.bool_]]:
    """`masks` as the twin of `model` has its kernels, by names such as `conv_1/kernel`; True = keep. Without Keras."""
    channels = flattened_channels(model, input_shape)
    layers = {name.removesuffix(".weight"): mask.keep for name, mask in masks.items()}
    return {
        f"{name}/kernel": np.ascontiguousarray(to_keras(keep, channels.get(name)).cpu().numpy())
        for name, keep in layers.items()
    }


def _keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import h5py  # noqa: F401 (Keras misses it only when it saves)
        import keras
    except ImportError as error:
        raise ModelError(
            f"Keras files need {error.name}, which is not installed: pip install 'tombola[keras]'"
        ) from None
    return keras


def _twin(keras: Any, model: nn.Sequential, input_shape: Sequence[int], normalisation: Normalisation) -> Any:
    inputs = keras.Input(_channels_last(input_shape), name=INPUT)
    outputs = inputs
    if normalisation != Normalisation():
        mean, variance = list(normalisation.mean), [value * value for value in normalisation.std]
        count = outputs.shape[-1] if len(mean) == 1 else 1  # Keras wants a number a channel
        outputs = keras.layers.Normalization(mean=mean * count, variance=variance * count, name=NORMALISATION)(outputs)
    carriers: dict[str, Layer] = {}
    for name, module in model.named_children():
        for layer in keras_layers(keras, name, module):
            outputs = layer(outputs)
            carriers[name] = layer
    twin = keras.Model(inputs, keras.layers.Softmax(name=PROBABILITIES)(outputs))
    channels = flattened_channels(model, input_shape)
    for name, module in model.named_children():
        values = variables(module, channels.get(name))
        carriers[name].set_weights([value.detach().cpu().numpy() for value in values])
    return twin


def _write_if_equal(
    keras: Any, path: Path, twin: Any, model: nn.Sequential, input_shape: Sequence[int], normalisation: Normalisation
) -> float:
    folder = path.with_name(f".{path.stem}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        with storage_errors("write", path):
            folder.mkdir(parents=True, exist_ok=True)
            twin.save(folder / path.name)
        again = keras.saving.load_model(folder / path.name, compile=False, safe_mode=True)
        error = _difference(keras, again, model, input_shape, normalisation)
        if not error <= TOLERANCE:  # NaN, too
            raise ModelError(
                f"{path}: not written, its outputs differ from the network's by {error:.1e}, more than {TOLERANCE:.0e}"
            )
        with storage_errors("read", path):
            content = (folder / path.name).read_bytes()
        write_bytes(path, content)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return error


def _difference(
    keras: Any, twin: Any, model: nn.Sequential, input_shape: Sequence[int], normalisation: Normalisation
) -> float:
    pixels = torch.from_numpy(np.random.default_rng(0).random((EXAMPLES, *input_shape), dtype=np.float32))
    reference = copy.deepcopy(model).cpu().eval()
    shape = [-1 if axis == 1 else 1 for axis in range(pixels.dim())]
    mean, std = (torch.tensor(values).view(shape) for values in (normalisation.mean, normalisation.std))
    with torch.no_grad():
        logits = reference(pixels.sub(mean).div_(std))
    last = twin.get_layer(PROBABILITIES)
    both = keras.Model(twin.input, [last.input, last.output])
    theirs = pixels.movedim(1, -1).contiguous().numpy()
    found = [torch.from_numpy(np.array(keras.ops.convert_to_numpy(part))) for part in both(theirs, training=False)]
    wanted = [logits, logits.softmax(1)]
    scale = logits.abs().max().clamp(min=1)
    return max(float((there - here).abs().max() / scale) for there, here in zip(found, wanted, strict=True))


def _channels_last(shape: Sequence[int]) -> tuple[int, ...]:
    return (*shape[1:], shape[0])
