"""Reads `.keras` files into architectures of the zoo: which one it is, its widths, its weights under our names.

Without Keras: a file's layers are compared, step by step, with those of every architecture.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import ModelError
from tombola.models.keras_archive import KerasLayer, read_layers
from tombola.models.keras_inputs import IN_FRONT, input_shape_of, normalisation_of
from tombola.models.keras_layouts import flattened_channels, from_keras
from tombola.models.keras_steps import SIGMOID, SOFTMAX, Step, keras_steps, torch_steps
from tombola.models.keras_training import left_behind, say
from tombola.models.spec import Normalisation
from tombola.models.zoo import architectures

SHOWN_STEPS = 12


@dataclass(frozen=True)
class KerasModel:
    """What a `.keras` file holds, in the words of a `ModelSpec`, and its weights by the names of our state dict.

    `input_shape` is (channels, height, width) or (features,). `dropout` is the fraction after every hidden dense layer,
    0 where the file has other fractions or places: they change how one trains, never what the model computes, and it is
    said.
    """

    architecture: str
    widths: tuple[int, ...]
    dropout: float
    input_shape: tuple[int, ...]
    classes: int
    normalisation: Normalisation
    weights: dict[str, Tensor]


def read_keras(path: Path) -> KerasModel:
    """The model in a `.keras` file of Keras 3 that is one of the zoo's; nothing in it is executed.

    One sigmoid output z becomes the two logits -z/2 and z/2, whose softmax is exactly (1 - sigmoid(z), sigmoid(z)).
    A Rescaling or Normalization in front becomes the normalisation of inputs in [0, 1] (see `keras_inputs`).
    Raises ModelError in one line for a file that is damaged, too large, of another architecture (it names the
    layer), or whose weights do not fit its layers, are not float32 or not finite.
    """
    layers = read_layers(path)
    try:
        shape = input_shape_of(layers[0])
        front = next((place for place, layer in enumerate(layers) if layer.kind not in IN_FRONT), len(layers))
        normalisation = normalisation_of(layers[1:front], shape)
        body = layers[front:]
        steps, end = _without_end(keras_steps(body, shape))
        network = [step for step in steps if step[0] != "dropout"]
        name, widths, model = _architecture(network, shape, end)
        weights = _weights(body, model, shape, halved=end == SIGMOID)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RuntimeError) as error:
        raise ModelError(f"{path}: its layers are damaged ({type(error).__name__}: {error})") from None
    classes = 2 if end == SIGMOID else network[-1][1]
    dropout = _dropout(steps)
    say(path, left_behind(body, dropout))
    return KerasModel(name, widths, dropout, shape, classes, normalisation, weights)


def _without_end(steps: list[Step]) -> tuple[list[Step], Step | None]:
    """The steps up to the logits, and what makes probabilities of them."""
    if steps and steps[-1] in (SOFTMAX, SIGMOID):
        return steps[:-1], steps[-1]
    return steps, None


def _architecture(
    steps: list[Step], shape: tuple[int, ...], end: Step | None
) -> tuple[str, tuple[int, ...], nn.Sequential]:
    """The first architecture of the zoo with these steps, its widths, and the network on the meta device."""
    outputs = steps[-1][1] if steps and steps[-1][0] == "dense" else 0
    if end == SIGMOID and outputs != 1:
        raise ModelError("its sigmoid has several outputs, which are no classes of which one holds")
    if end != SIGMOID and outputs == 1:
        raise ModelError("has one output without a sigmoid, which is no classifier; end it with a sigmoid")
    classes = 2 if end == SIGMOID else outputs
    wanted = [*steps[:-1], (*steps[-1][:1], classes, *steps[-1][2:])] if outputs else steps
    for name in architectures:
        for widths in _possible_widths(steps):
            model = _on_meta(name, shape, classes, widths)
            if model is not None and torch_steps(model, shape) == wanted:
                return name, widths, model
    raise ModelError(
        f"a .keras file of another architecture: {_shown(steps)} on inputs of {shape}; supported are: "
        + ", ".join(name for name in architectures if _on_meta(name, (3, 64, 64), 2, architectures.get(name).widths))
    )


def _possible_widths(steps: list[Step]) -> Iterator[tuple[int, ...]]:
    """The filters of every convolution, or of every stage between pools, then the units of the hidden dense layers."""
    units = tuple(step[1] for step in steps if step[0] == "dense")[:-1]
    filters = tuple(step[1] for step in steps if step[0] == "convolution")
    yield filters + units
    of_stages, last = [], 0
    for step in steps:
        if step[0] == "convolution":
            last = step[1]
        elif step[0] == "max pool":
            of_stages.append(last)
    if tuple(of_stages) != filters:
        yield tuple(of_stages) + units


def _on_meta(name: str, shape: tuple[int, ...], classes: int, widths: tuple[int, ...]) -> nn.Sequential | None:
    architecture = architectures.get(name)
    try:
        architecture.check_widths(name, widths)
        architecture.check_input(name, shape)
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):  # of layers without units
            model = architecture.make(shape, classes, widths, 0.0)
    except (ValueError, ModelError, RuntimeError, TypeError, OverflowError):
        return None  # not this one
    if not isinstance(model, nn.Sequential) or any(list(layer.children()) for layer in model):
        return None  # its layers do not follow one another
    return model


def _weights(
    layers: Sequence[KerasLayer], model: nn.Sequential, shape: Sequence[int], halved: bool
) -> dict[str, Tensor]:
    channels = flattened_channels(model, shape)
    carriers = [layer for layer in layers if layer.kind in ("Conv2D", "BatchNormalization", "Dense")]
    ours = [(name, module) for name, module in model.named_children() if module.state_dict()]
    weights: dict[str, Tensor] = {}
    for layer, (name, module) in zip(carriers, ours, strict=True):
        tensors = _tensors(layer, module, channels.get(name))
        if halved and module is model[-1]:
            tensors = {key: torch.cat([-tensor / 2, tensor / 2]) for key, tensor in tensors.items()}
        for key, expected in module.state_dict().items():
            if key == "num_batches_tracked":  # decides nothing in our networks, and Keras does not count
                tensors[key] = torch.zeros((), dtype=torch.int64)
            found = tensors[key]
            if found.shape != expected.shape:
                there, here = tuple(found.shape), tuple(expected.shape)
                raise ModelError(f"layer {layer.name}: its {key} is {there} in our layout, its place takes {here}")
            weights[f"{name}.{key}"] = found
    return weights


def _tensors(layer: KerasLayer, module: nn.Module, channels: int | None) -> dict[str, Tensor]:
    """The variables of a layer by our names, in our layout."""
    keys = [key for key in _KEYS[layer.kind] if key in module.state_dict()]
    found = layer.variables()
    if len(found) != len(keys):
        raise ModelError(
            f"layer {layer.name}: the file holds {len(found)} arrays of it, a {layer.kind} has {len(keys)}"
        )
    tensors = dict(zip(keys, found, strict=True))
    if isinstance(module, nn.BatchNorm2d):
        # A smaller epsilon with as much more variance is the same function; equal ones leave every bit as it is.
        difference = float(layer.config["epsilon"]) - module.eps
        tensors["running_var"] = tensors["running_var"] + difference if difference else tensors["running_var"]
        return tensors
    kernel = tensors["weight"]
    if kernel.dim() != module.state_dict()["weight"].dim() or (channels is not None and kernel.shape[0] % channels):
        raise ModelError(f"layer {layer.name}: its kernel of shape {tuple(kernel.shape)} does not fit its place")
    return tensors | {"weight": from_keras(kernel, channels)}


_KEYS = {
    "Conv2D": ("weight", "bias"),
    "Dense": ("weight", "bias"),
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
}


def _dropout(steps: Sequence[Step]) -> float:
    """The fraction that a dropout after each hidden dense layer has, 0 where it is not the same in all."""
    hidden = [place for place, step in enumerate(steps) if step[0] == "dense"][:-1]
    # A ReLU lies between a dense layer and its dropout.
    after: list[Any] = [steps[place + 2] if place + 2 < len(steps) else () for place in hidden]
    fractions = {step[1] if step[:1] == ("dropout",) else 0.0 for step in after}
    return float(fractions.pop()) if len(fractions) == 1 else 0.0


def _shown(steps: Sequence[Step]) -> str:
    words = [_word(step) for step in steps]
    return ", ".join(words[:SHOWN_STEPS]) + (
        f" and {len(words) - SHOWN_STEPS} more" if len(words) > SHOWN_STEPS else ""
    )


def _word(step: Step) -> str:
    """`convolution 6 of (5, 5), strides (1, 1), padding (0, 0)`, `dense 120`, `max pool (2, 2)`."""
    if step[0] == "convolution":
        return f"convolution {step[1]} of {step[2]}, strides {step[3]}, padding {step[4]}"
    return " ".join(str(part) for part in step[:2])
