"""A network as a Keras model: a `.keras` file that is accepted only when it computes what the network does.

Needs the extra `keras`. Keras is an exporter here and nothing else: what reads its files (`keras_models`) does without.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tombola.errors import ModelError, TombolaError, one_line
from tombola.models.keras_layers import Layer, keras_layers, variables
from tombola.models.keras_layouts import flattened_channels, to_keras
from tombola.models.spec import Normalisation
from tombola.pruning import Mask
from tombola.pruning.copies import copy_of
from tombola.runs.atomic import TEMPORARY_SUFFIX, storage_errors, write_bytes
from tombola.runs.cache import cache_folder

TOLERANCE = 1e-5
EXAMPLES = 16
Outputs = list[tuple[Tensor, Tensor]]
"""Sets of examples in [0, 1], and their logits."""
INPUT, NORMALISATION, PROBABILITIES = "input", "normalisation", "probabilities"


def write_keras(
    path: Path,
    model: nn.Module,
    input_shape: Sequence[int],
    normalisation: Normalisation,
    examples: Tensor | None = None,
) -> float:
    """Writes the Keras export of `model` to `path`, a `.keras` file, and gives its largest difference from torch.

    `input_shape` is (channels, height, width), or (features,). The export takes inputs in [0, 1] as Keras lays them
    out, (n, height, width, channels) or (n, features): its first layer normalises them. Its last, `probabilities`, is a
    softmax over the logits of the layer before. Layers have the names they have in `model`.

    The file is read back by Keras and compared with `model` in evaluation mode on 16 random examples and on `examples`
    (n, *input_shape), in [0, 1]: a network may be dead on noise and not on images. Logits may differ by 1e-5 of the
    largest where that is above 1, probabilities by 1e-5. ModelError with both numbers, and no file, where one differs
    by more: so does a right export of logits near 100 that are nearly equal, which float32 cannot hold to 1e-5.
    ModelError, too, where a layer cannot be exported, and where the extra is missing. `model` stays as it is.

    The same model gives the same weights, but not the same bytes: Keras writes the date and addresses of objects.
    """
    if path.suffix != ".keras":
        raise ModelError(f"{path}: Keras reads models by the name's end; call it {path.stem}.keras")
    if type(model) is not nn.Sequential or not len(model):
        raise ModelError(
            f"a {type(model).__name__} cannot be exported to Keras: only networks whose layers follow one another "
            "can, as in an nn.Sequential"
        )
    keras = loaded_keras()
    if examples is not None and tuple(examples.shape[1:]) != tuple(input_shape):
        raise ModelError(f"{path}: examples of {tuple(examples.shape[1:])} for a network of {tuple(input_shape)}")
    state = random.getstate()  # Keras draws seeds from it
    try:
        with torch.random.fork_rng(devices=[]), keras.device("cpu"):
            export = _keras_model(keras, model, input_shape, normalisation)
            wanted = _outputs(model, _inputs(input_shape, examples), normalisation)
            return _write_if_equal(keras, path, export, wanted)
    except TombolaError:
        raise
    except Exception as error:  # Keras and its backends: any kind, of many lines
        raise ModelError(
            f"{path}: keras {keras.__version__} on {keras.backend.backend()} cannot write this network: "
            f"{one_line(error)}"
        ) from None
    finally:
        random.setstate(state)


def keras_masks(
    model: nn.Sequential, input_shape: Sequence[int], masks: Mapping[str, Mask]
) -> dict[str, NDArray[np.bool_]]:
    """`masks` as the export of `model` has its kernels, by names such as `conv_1/kernel`; True = keep."""
    channels = flattened_channels(model, input_shape)
    layers = {name.removesuffix(".weight"): mask.keep for name, mask in masks.items()}
    return {
        f"{name}/kernel": np.ascontiguousarray(to_keras(keep, channels.get(name)).cpu().numpy())
        for name, keep in layers.items()
    }


def loaded_keras() -> Any:
    """Keras, on the backend that the user has chosen, else on torch. ModelError where the extra is not installed."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    if not (Path("~").expanduser() / ".keras" / "keras.json").exists():  # else the user has chosen, and nothing is new
        os.environ.setdefault("KERAS_HOME", str(cache_folder("keras")))
    try:
        import h5py  # noqa: F401 (Keras misses it only when it saves)
        import keras
    except ImportError as error:
        raise ModelError(
            f"Keras files need {error.name}, which is not installed: pip install 'tombola[keras]'"
        ) from None
    return keras


def _keras_model(keras: Any, model: nn.Sequential, input_shape: Sequence[int], normalisation: Normalisation) -> Any:
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
    export = keras.Model(inputs, keras.layers.Softmax(name=PROBABILITIES)(outputs))
    channels = flattened_channels(model, input_shape)
    for name, module in model.named_children():
        values = variables(module, channels.get(name))
        carriers[name].set_weights([value.detach().cpu().numpy() for value in values])
    return export


def _write_if_equal(keras: Any, path: Path, export: Any, wanted: Outputs) -> float:
    folder = path.with_name(f".{path.stem}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        with storage_errors("write", path):
            folder.mkdir(parents=True, exist_ok=True)
            export.save(folder / path.name)
        again = keras.saving.load_model(folder / path.name, compile=False, safe_mode=True)
        logits, probabilities = _differences(keras, again, wanted)
        if not (logits <= TOLERANCE and probabilities <= TOLERANCE):  # NaN, too
            raise ModelError(
                f"{path}: not written, its logits differ from the network's by {logits:.1e} of the largest and its "
                f"probabilities by {probabilities:.1e}, where {TOLERANCE:.0e} is the most"
            )
        with storage_errors("read", path):
            content = (folder / path.name).read_bytes()
        write_bytes(path, content)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return max(logits, probabilities)


def _inputs(input_shape: Sequence[int], examples: Tensor | None) -> list[Tensor]:
    noise = torch.from_numpy(np.random.default_rng(0).random((EXAMPLES, *input_shape), dtype=np.float32))
    return [noise] if examples is None else [noise, examples.cpu()]


def _outputs(model: nn.Sequential, inputs: Sequence[Tensor], normalisation: Normalisation) -> Outputs:
    reference = copy_of(model).cpu().eval()
    outputs = []
    for pixels in inputs:
        shape = [-1 if axis == 1 else 1 for axis in range(pixels.dim())]
        mean, std = (torch.tensor(values).view(shape) for values in (normalisation.mean, normalisation.std))
        with torch.no_grad():
            outputs.append((pixels, reference(pixels.sub(mean).div_(std))))
    return outputs


def _differences(keras: Any, export: Any, wanted: Outputs) -> tuple[float, float]:
    """The largest of logits, as a fraction of the largest logit of the same set, and the largest of probabilities."""
    last = export.get_layer(PROBABILITIES)
    both = keras.Model(export.input, [last.input, last.output])
    found = []
    for pixels, logits in wanted:
        with torch.no_grad():
            outputs = both(pixels.movedim(1, -1).contiguous().numpy(), training=False)
        theirs, probabilities = (torch.from_numpy(np.array(keras.ops.convert_to_numpy(part))) for part in outputs)
        scale = logits.abs().max().clamp(min=1)
        found.append([(theirs - logits).abs().max() / scale, (probabilities - logits.softmax(1)).abs().max()])
    largest = torch.tensor(found).amax(0)  # NaN where any is
    return float(largest[0]), float(largest[1])


def _channels_last(shape: Sequence[int]) -> tuple[int, ...]:
    return (*shape[1:], shape[0])
