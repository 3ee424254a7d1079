"""A network as a `.keras` file (`models/keras_export` writes it), how Keras runs it, and the weights that are in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tombola.errors import ModelError
from tombola.models.keras_export import loaded_keras, write_keras
from tombola.models.keras_layouts import flattened_channels, from_keras
from tombola.models.normalised import NETWORK, Normalised
from tombola.models.spec import Normalisation


def write(path: Path, model: nn.Module, example: Tensor) -> None:
    """Writes `model`, a chain of layers, its normalisation included; the file gives probabilities, not logits."""
    network, normalisation = _parts(model)
    write_keras(path, network, tuple(example.shape[1:]), normalisation, example)


def _parts(model: nn.Module) -> tuple[nn.Sequential, Normalisation]:
    normalisation = model.normalisation if isinstance(model, Normalised) else Normalisation()
    network = model.network if isinstance(model, Normalised) else model
    if not isinstance(network, nn.Sequential):
        raise ModelError(f"a {type(network).__name__} is no chain of layers (nn.Sequential) and has no form in Keras")
    return network, normalisation


def run_keras(path: Path) -> Callable[[Tensor], Tensor]:
    """The logarithms of what Keras makes of a batch: logits, but for a number an example."""
    keras = loaded_keras()
    loaded = keras.saving.load_model(path, compile=False, safe_mode=True)

    def run(batch: Tensor) -> Tensor:
        with torch.no_grad():
            outputs = loaded(batch.movedim(1, -1).contiguous().numpy(), training=False)
        return torch.from_numpy(np.array(keras.ops.convert_to_numpy(outputs))).log()

    return run


def weights_in(path: Path, model: nn.Module, example: Tensor) -> dict[str, NDArray[Any]]:
    """The kernels of the file by the names and in the layout that they have in `model`."""
    network, _ = _parts(model)
    keras = loaded_keras()
    loaded = keras.saving.load_model(path, compile=False, safe_mode=True)
    channels = flattened_channels(network, tuple(example.shape[1:]))
    before = f"{NETWORK}." if isinstance(model, Normalised) else ""
    found = {}
    for name, module in network.named_children():
        if isinstance(module, nn.Conv2d | nn.Linear):
            kernel = torch.from_numpy(np.array(keras.ops.convert_to_numpy(loaded.get_layer(name).kernel)))
            found[f"{before}{name}.weight"] = from_keras(kernel, channels.get(name)).numpy()
    return found
