"""The files of a ticket: its mask, the weights it restarts from, and the spec to rebuild the model.

The mask is one flat boolean array of all prunable weights in order, readable without Tombola or torch:
`numpy.load("winning_ticket_mask.npy", allow_pickle=False)`; the JSON beside it says which part is which layer.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tombola.data.npy import parse_npy
from tombola.errors import DataError, ModelError, PruningError, StorageError, one_line
from tombola.models.config import Spec
from tombola.models.factory import Factory
from tombola.models.folder import ALTERED, fill, read_spec, rebuilt
from tombola.models.spec import ModelSpec, refuse_larger
from tombola.models.states import plain_state
from tombola.models.tensors import read_stored, save_tensors
from tombola.pruning import Masks
from tombola.runs import limits
from tombola.runs.atomic import make_folder, read_bytes, read_json, write_bytes, write_json
from tombola.runs.sealed import read_sealed, write_sealed

MASK, MASK_INDEX = "winning_ticket_mask.npy", "winning_ticket_mask.json"
WEIGHTS, SPEC = "winning_ticket.safetensors", "spec.json"
MASK_SIZE_LIMIT = limits.MASK

_DAMAGE = (StorageError, DataError, ValueError, KeyError, TypeError, AttributeError, OverflowError)


def write_ticket(folder: Path, spec: Spec, start: nn.Module, masks: Masks, history: dict[str, Any]) -> None:
    """Writes a ticket's four files; `start` holds the weights it restarts from, removed ones already 0."""
    make_folder(folder)
    write_mask(folder, masks)
    files = {WEIGHTS: save_tensors(folder / WEIGHTS, plain_state(start))}
    write_sealed(folder / SPEC, {"model": spec.model_dump(mode="json"), "history": history, "files": files})


def load_ticket(folder: Path, factory: str | Factory | None = None) -> tuple[nn.Module, Spec, Masks, dict[str, Any]]:
    """The network that a ticket restarts from, its spec, masks and history, from the files that `write_ticket` wrote.

    ModelError where they are damaged or do not fit one another, and where somebody's own code has to be named.
    """
    spec, history = read_spec(folder)
    masks = read_mask(folder)
    try:
        stored = read_stored(folder / WEIGHTS)
        recorded = read_sealed(folder / SPEC, ALTERED, limits.SPEC).get("files")
        if recorded != {WEIGHTS: stored.sha256}:
            raise ModelError(f"{WEIGHTS} is not the file that its {SPEC} records by checksum")
        if isinstance(spec, ModelSpec):
            refuse_larger(spec, stored.tensors)
        model = rebuilt(spec, factory, str(folder))
        fill(model, stored.tensors)
        masks = masks.of(model)
    except (ModelError, StorageError, PruningError, RuntimeError, KeyError) as error:
        said = one_line(error).removeprefix(f"{folder}: ")
        raise ModelError(f"{folder}: the files do not make the network of its spec: {said}") from None
    return model, spec, masks, history


def write_mask(folder: Path, masks: Masks) -> None:
    """Writes the flat mask array and its index of layers."""
    flat = torch.cat([mask.keep.reshape(-1) for mask in masks.values()]).cpu().numpy()
    buffer = io.BytesIO()
    np.save(buffer, flat, allow_pickle=False)
    index: list[dict[str, Any]] = []
    offset = 0
    for layer in masks.table():
        entry = {"name": layer.name, "shape": list(layer.shape), "offset": offset}
        index.append(entry | {"size": layer.total, "kept": layer.kept})
        offset += layer.total
    write_bytes(folder / MASK, buffer.getvalue())
    write_json(folder / MASK_INDEX, {"meaning": "true = kept", "size": offset, "layers": index})


def read_mask(folder: Path) -> Masks:
    """The masks that `write_mask` wrote; ModelError when array and index do not fit together."""
    try:
        index = read_json(folder / MASK_INDEX)
        flat = parse_npy(read_bytes(folder / MASK, MASK_SIZE_LIMIT), "its array")
        if flat.dtype != np.bool_ or flat.ndim != 1 or len(flat) != index["size"]:
            raise ValueError(f"expected {index['size']} booleans, found {flat.dtype} {flat.shape}")
        tensors: dict[str, torch.Tensor] = {}
        end = 0
        for layer in index["layers"]:
            start, shape = end, tuple(layer["shape"])
            end = start + math.prod(shape)
            if layer["offset"] != start or layer["name"] in tensors or min(shape, default=0) < 0:
                raise ValueError(f"the layers do not follow one another at {layer['name']!r}")
            keep = flat[start:end].reshape(shape)
            if layer["kept"] != np.count_nonzero(keep) or keep.view(np.uint8).max(initial=0) > 1:
                raise ValueError(f"{layer['name']} does not keep the {layer['kept']} weights that its index says")
            tensors[layer["name"]] = torch.from_numpy(keep.copy())
        if end != len(flat):
            raise ValueError(f"its layers hold {end} of {len(flat)} weights")
    except _DAMAGE as error:
        raise ModelError(f"{folder / MASK}: damaged, or not of this index: {one_line(error)}") from None
    return Masks.from_tensors(tensors)
