"""The frozen base: a network up to a layer, its weights from wherever a config has them, that never learns."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tombola.data.base import Base
from tombola.errors import ConfigError, ModelError, counted
from tombola.models import ModelSpec, build, load_model
from tombola.models.exits import find_exit, prefix
from tombola.models.folder import SPEC, WEIGHTS, read_spec
from tombola.models.pretrained import IMAGENET, NAMES, read_base
from tombola.models.published import published_path, published_weights
from tombola.models.spec import Normalisation, without_memory
from tombola.models.tensors import content_sha256
from tombola.models.vgg16_keras import STAGES
from tombola.runs.atomic import storage_errors
from tombola.training.device import CPU, resolve

ARCHITECTURE = "vgg16-keras"
RANDOM = "random weights, never trained"
PUBLISHED = ("torchvision", "keras")
WIDTHS = (64, 128, 256, 512, 512)
"""Channels of VGG16's blocks as published."""
HEAD_UNITS = 1
"""Of the dense layers behind a base that is only built to be cut off before them."""


@dataclass(frozen=True)
class FrozenBase:
    """A network (n, *input_shape) -> (n, *output_shape) in evaluation mode, and the normalisation of its inputs.

    `network` is on the CPU; features of many examples are computed on `device`.

    `trained_on` is the checksum of the data that it learnt from, where a model folder says it.
    """

    network: nn.Sequential
    layer: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    normalisation: Normalisation
    source: str
    trained_on: str | None = None
    device: torch.device = CPU

    @functools.cached_property
    def sha256(self) -> str:
        """Over its weights."""
        return content_sha256(self.network.state_dict())

    @property
    def facts(self) -> dict[str, Any]:
        """What a run records of it, and must find again to be continued."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "layer": self.layer,
            "input_shape": list(self.input_shape),
            "normalisation": self.normalisation.model_dump(mode="json"),
        }


class _Network(NamedTuple):
    """All of the layers that a base has, before it is cut."""

    layers: nn.Sequential
    normalisation: Normalisation
    source: str
    trained_on: str | None = None


def open_base(config: Base, input_shape: Sequence[int], fetch: bool = True) -> FrozenBase:
    """The base of `config` for images of `input_shape`; one that was opened before if its files are as they were.

    Without `fetch` nothing is downloaded: random weights stand for published ones that are not there.
    Raises ModelError where weights are missing, damaged, or of another network or number of channels, ConfigError for
    a layer that it does not have.
    """
    path = _existing(config.weights, fetch)
    return _opened(config, path, None if path is None else _stamps(path), tuple(input_shape))


@functools.lru_cache(maxsize=2)
def _opened(
    config: Base, path: Path | None, stamps: tuple[tuple[int, int], ...] | None, input_shape: tuple[int, ...]
) -> FrozenBase:
    network, normalisation, source, trained_on = _network(config, path, input_shape)
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first.in_channels != input_shape[0]:
        raise ModelError(
            f"the base ({source}) takes images of {counted(first.in_channels, 'channel')}, these have "
            f"{input_shape[0]}; set data.channels to {first.in_channels}, or take other images"
        )
    try:
        exit = find_exit(network, config.layer)
    except ConfigError as error:
        raise ConfigError(f"data.base.layer: {error}") from None
    frozen = prefix(network, exit).eval().requires_grad_(False)
    try:
        with torch.no_grad():
            output = frozen(torch.zeros(1, *input_shape))
    except RuntimeError as error:
        raise ModelError(
            f"the base ({source}) does not take images of shape {input_shape}, is data.size too small? "
            f"({str(error).splitlines()[0]})"
        ) from None
    shape, device = tuple(output.shape[1:]), resolve(config.device)
    return FrozenBase(frozen, config.layer, input_shape, shape, normalisation, source, trained_on, device)


def _existing(weights: str | None, fetch: bool) -> Path | None:
    """The file or model folder that `data.base.weights` names, whole: the folder where a program works may change.

    None where weights are to be random, or are published, not there and not to be fetched.
    """
    if weights is None or (weights in PUBLISHED and not fetch and not published_path(weights).exists()):
        return None
    path = published_weights(weights) if weights in PUBLISHED else Path(weights)
    with storage_errors("read", path):
        if not path.exists():
            raise ModelError(
                f"data.base.weights: there is no {path}; name VGG16's weights (.pth, .h5, .keras, .safetensors) or a "
                "model folder, which tombola train vgg16-base makes"
            )
        if not (path.is_file() or path.is_dir()):
            raise ModelError(f"data.base.weights: {path} is a device or a pipe, not a file of weights")
        return path.absolute()


def _stamps(path: Path) -> tuple[tuple[int, int], ...]:
    """By which files of weights are known to be as they were: when each was written, and its bytes."""
    with storage_errors("read", path):
        files = [path / SPEC, path / WEIGHTS] if path.is_dir() else [path]
        found = [file.stat() for file in files if file.exists()]
    return tuple((file.st_mtime_ns, file.st_size) for file in found)


def _network(config: Base, path: Path | None, input_shape: Sequence[int]) -> _Network:
    if path is None and config.weights is not None:  # ImageNet's are of three channels
        stand_in = _vgg16((3, *input_shape[1:]), WIDTHS, seed=0)
        return _Network(stand_in, IMAGENET, f"the published weights of {config.weights}, not downloaded yet")
    if path is None:
        return _Network(_vgg16(input_shape, config.widths or WIDTHS, seed=0), Normalisation(), RANDOM)
    if path.is_dir():
        return _of_folder(config, path)
    read = read_base(path, config.sha256, config.preprocessing)
    channels, widths = _channels(read.weights, path)
    if not all((channels, *widths)):
        raise ModelError(f"{path}: a layer of it has no channels, this is no VGG16")
    spec = _vgg16_spec((channels, *input_shape[1:]), widths, seed=0)
    # Before it is built: empty arrays claim any width.
    expected = {name: tensor for name, tensor in without_memory(spec).state_dict().items() if name.startswith("block")}
    if {n: t.shape for n, t in read.weights.items()} != {n: t.shape for n, t in expected.items()}:
        raise ModelError(f"{path}: its convolutions are not VGG16's")
    network = _built(spec)
    network.load_state_dict(read.weights, strict=False)
    return _Network(network, read.normalisation, read.source)


def _of_folder(config: Base, folder: Path) -> _Network:
    if config.preprocessing or config.sha256:
        raise ModelError(f"{folder}: a model folder brings its own preprocessing and checksums; leave these out")
    model, spec, _ = load_model(folder)
    if not isinstance(model, nn.Sequential):
        raise ModelError(f"{folder}: a base is a chain of layers, this is a {type(model).__name__}")
    return _Network(model, spec.normalisation, f"model folder {folder.resolve().name}", _trained_on(folder))


def _trained_on(folder: Path) -> str | None:
    """The checksum of the data in a model folder's history; None where nobody wrote one."""
    data = read_spec(folder)[1].get("data")
    checksum = data.get("checksum") if isinstance(data, dict) else None
    return checksum if isinstance(checksum, str) else None


def _vgg16(input_shape: Sequence[int], widths: Sequence[int], seed: int) -> nn.Sequential:
    return _built(_vgg16_spec(input_shape, widths, seed))


def _vgg16_spec(input_shape: Sequence[int], widths: Sequence[int], seed: int) -> ModelSpec:
    return ModelSpec(
        architecture=ARCHITECTURE,
        widths=(*widths, HEAD_UNITS, HEAD_UNITS),
        initialisation="kaiming-normal",
        input_shape=tuple(input_shape),
        classes=2,
        seed=seed,
    )


def _built(spec: ModelSpec) -> nn.Sequential:
    network = build(spec)
    assert isinstance(network, nn.Sequential)
    return network


def _channels(weights: Mapping[str, Tensor], path: Path) -> tuple[int, list[int]]:
    """Of the images that it takes, and of its five blocks; ModelError where one of VGG16's layers is missing."""
    if missing := [name for name in NAMES if f"{name}.weight" not in weights]:
        raise ModelError(f"{path}: VGG16's layer {missing[0]} is not in it")
    ends = [f"block{block}_conv{count}.weight" for block, count in enumerate(STAGES, start=1)]
    return weights[f"{NAMES[0]}.weight"].shape[1], [len(weights[end]) for end in ends]
