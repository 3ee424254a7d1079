"""Opens `.keras` files: the layers that their config names, and the variables of each. Without Keras.

No config becomes an object and nothing is unpacked to the disk: three members of the zip are read, by name. What the
layers do, `keras_steps` knows; which network they make, `keras_models`.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tombola.errors import ModelError, one_line
from tombola.models.hdf5 import Hdf5File
from tombola.models.tensors import SIZE_LIMIT
from tombola.runs import limits
from tombola.runs.atomic import opened, storage_errors
from tombola.runs.kinds import LONGEST, other_kind
from tombola.runs.strict_json import parse_json

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
LIMITS = {CONFIG: limits.KERAS_CONFIG, METADATA: limits.SPEC, WEIGHTS: SIZE_LIMIT}
NESTED = ("Functional", "Sequential")
GROUPS = {
    "Conv2D": "conv2d",
    "Dense": "dense",
    "BatchNormalization": "batch_normalization",
    "Normalization": "normalization",
    "Functional": "functional",
    "Sequential": "sequential",
}
"""What Keras calls the groups of the layers of a class, of those that have variables."""
LAYER_LIMIT, DEPTH_LIMIT = limits.KERAS_LAYERS, limits.KERAS_DEPTH
HDF5 = b"\x89HDF\r\n\x1a\n"
"""How such a file begins."""


@dataclass(frozen=True)
class KerasLayer:
    """A layer as the file has it. Its `variables` are read on demand, in Keras's order and layout."""

    name: str
    kind: str
    config: Mapping[str, Any]
    group: str
    weights: Hdf5File

    def variables(self, most: int | None = None) -> list[Tensor]:
        """All of them, or the first `most`; the ModelErrors of this do not name the `.keras` file."""
        count = len(self.weights.names(f"{self.group}/vars")[:most])
        return [self.weights.tensor(f"{self.group}/vars/{number}") for number in range(count)]


def read_layers(path: Path, chain: bool = True) -> list[KerasLayer]:
    """The layers of the `.keras` file `path` in its order, those of models within the model in their place.

    With `chain`, ModelError where they do not follow one another from one input to one output. ModelError in one
    line for what is no `.keras` file of Keras 3, damaged, or larger than it may be.
    """
    members = _members(path)
    version = _parsed(members[METADATA], f"{path}: {METADATA}").get("keras_version")
    if not isinstance(version, str) or not version.startswith("3."):
        raise ModelError(f"{path}: written by Keras {version!r:.20}, not Keras 3; load it and save it with Keras 3")
    config = _parsed(members[CONFIG], f"{path}: {CONFIG}")
    try:
        weights = Hdf5File(members[WEIGHTS], WEIGHTS)
        layers = list(_layers(config, "", weights, chain, 0))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: {CONFIG} is damaged ({type(error).__name__}: {error})") from None
    if not layers or layers[0].kind != "InputLayer":
        raise ModelError(f"{path}: says nothing of its inputs; give the model an Input and save it again")
    return layers


def _members(path: Path) -> dict[str, bytes]:
    with storage_errors("read", path):
        if not path.is_file():
            raise ModelError(f"{path}: {'not a plain file' if path.exists() else 'no such file'}")
        if _head(path).startswith(HDF5):
            raise ModelError(f"{path}: HDF5, as Keras 2 saved models; load it with Keras and save it again as .keras")
        try:
            with opened(path) as file, zipfile.ZipFile(file) as archive:
                return {name: _member(archive, name, path) for name in LIMITS}
        except (OSError, ModelError):
            raise
        except Exception as error:  # zipfile meets damage with several kinds of error
            reason = other_kind(_head(path), "zip") or one_line(error)
            raise ModelError(f"{path}: damaged, cut short or no .keras file ({reason})") from None


def _head(path: Path) -> bytes:
    with opened(path) as file:
        return file.read(LONGEST)


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    count = archive.namelist().count(name)
    if count != 1:
        raise ModelError(f"{path}: holds {count} members called {name}, a .keras file of Keras 3 has one")
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise ModelError(f"{path}: {name} is packed or encrypted, which Keras never does; save the model with Keras")
    if member.file_size > min(LIMITS[name], path.stat().st_size):
        raise ModelError(f"{path}: {name} of {member.file_size:,} bytes is more than is expected at most")
    return archive.read(member)


def _parsed(content: bytes, where: str) -> dict[str, Any]:
    try:
        found = parse_json(content, infinite=True)
    except ValueError as error:
        raise ModelError(f"{where} is damaged ({one_line(error)})") from None
    if not isinstance(found, dict):
        raise ModelError(f"{where} is damaged (no keys and values)")
    return found


def _layers(model: Mapping[str, Any], root: str, weights: Hdf5File, chain: bool, depth: int) -> Iterator[KerasLayer]:
    """Keras numbers the variables' groups by class, in the order of the config: conv2d, conv2d_1, dense, ..."""
    if model["class_name"] not in NESTED:
        raise ModelError(f"is a {model['class_name']!s:.60} of somebody's own; supported are {' and '.join(NESTED)}")
    layers = model["config"]["layers"]
    if len(layers) > LAYER_LIMIT or depth > DEPTH_LIMIT:
        raise ModelError("has more layers, or models within models, than are expected at most")
    if chain and model["class_name"] == "Functional":
        _check_chain(model["config"])
    counted: Counter[str] = Counter()
    for place, layer in enumerate(layers):
        kind, config = layer["class_name"], layer["config"]
        if not isinstance(kind, str) or not isinstance(config, dict):
            raise TypeError(f"layer {place} has no class and config")
        group = f"{root}layers/{GROUPS.get(kind, kind)}" + (f"_{counted[kind]}" if counted[kind] else "")
        counted[kind] += 1
        if kind in NESTED:
            yield from _layers(layer, f"{group}/", weights, chain, depth + 1)
        elif not (depth and place == 0 and kind == "InputLayer"):  # a model within the model has the outer's inputs
            yield KerasLayer(str(config["name"]), kind, config, group, weights)


def _check_chain(config: Mapping[str, Any]) -> None:
    before: list[str] = []
    for layer in config["layers"]:
        name = layer.get("name", layer["config"]["name"])
        nodes = layer["inbound_nodes"]
        if [_sources(node) for node in nodes] != ([before] if before else []):
            raise ModelError(
                f"a .keras file of another architecture: layer {name} does not take the outputs of the layer before it "
                "and nothing else"
            )
        if any(node["kwargs"].get("training") for node in nodes):
            raise ModelError(f"layer {name} is always in training mode; call it without `training`")
        before = [name]
    if _names(config["output_layers"]) != before:
        raise ModelError("a .keras file of another architecture: its output is not that of its last layer")


def _sources(node: Any) -> list[str]:
    """The layers whose outputs are among the arguments of a call."""
    if isinstance(node, Mapping):
        if node.get("class_name") == "__keras_tensor__":
            return [node["config"]["keras_history"][0]]
        node = list(node.values())
    return [name for part in node for name in _sources(part)] if isinstance(node, list) else []


def _names(outputs: Any) -> list[str]:
    """The layers in `["name", 0, 0]`, or in a list of such."""
    return [outputs[0]] if isinstance(outputs[0], str) else [output[0] for output in outputs]
