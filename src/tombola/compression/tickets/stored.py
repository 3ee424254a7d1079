"""What a ticket file says of itself, and its tensors by name, as far as they can be checked without a model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor

from tombola.compression.tickets import mask_codes, values
from tombola.compression.tickets.mask_codes import Code
from tombola.compression.tickets.values import Values
from tombola.errors import ConfigError
from tombola.models.packing import AXES
from tombola.pruning import Mask, Masks
from tombola.runs import limits
from tombola.runs.configs import Config, validate

KIND, FORMAT = "tombola ticket", 1

State = dict[str, Tensor]
"""Tensors by the names that a model has for them."""


class StoredLayer(Config):
    """A layer's mask."""

    name: str
    shape: tuple[NonNegativeInt, ...] = Field(max_length=AXES)
    kept: int = Field(ge=0)
    code: Code


class StoredStart(Config):
    """The weights that a ticket restarts from: those in the file, and for all others those of the spec's seed."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the state of the network that it makes, masked")
    restart: str = Field(description="in the words of a study: init, step:500it ...")
    stored: tuple[NonNegativeInt, ...] = Field(description="places of the layers whose weights are in the file")


class StoredTrained(Config):
    """The weights that it learned."""

    values: Values


class StoredTicket(Config):
    """All of it."""

    kind: Literal["tombola ticket"]
    format: Literal[1]
    tombola: str
    model: dict[str, Any]
    history: dict[str, Any]
    layers: tuple[StoredLayer, ...] = Field(max_length=limits.KEYS)
    start: StoredStart | None
    trained: StoredTrained | None


def facts_of(content: Mapping[str, Any], where: str) -> StoredTicket:
    """What a file says, in its form; ConfigError, which begins with `where`, for anything else."""
    if content.get("kind") != KIND:
        raise ConfigError(f"{where}: no ticket file, it was not written by tombola pack")
    if content.get("format") != FORMAT:
        raise ConfigError(
            f"{where}: of format {content.get('format')!r:.20} (Tombola {content.get('tombola')!r:.20}), this Tombola "
            f"reads {FORMAT}; use the version that wrote it"
        )
    size = len(json.dumps(content.get("model")))
    if size > limits.SPEC:  # as of a model folder
        raise ConfigError(f"{where}: model: {size:,} bytes of JSON, {limits.SPEC:,} are the most")
    return validate(dict(content), StoredTicket, where)


def mask_tensors(masks: Masks) -> tuple[tuple[StoredLayer, ...], State]:
    """The masks as layers and rows of bytes."""
    layers, rows = [], {}
    for place, (name, mask) in enumerate(masks.items()):
        code, content = mask_codes.encoded(mask.keep.reshape(-1).numpy())
        layers.append(StoredLayer(name=name, shape=tuple(mask.shape), kept=mask.kept, code=code))
        rows[f"mask/{place}"] = torch.from_numpy(content)
    return tuple(layers), rows


def masks_in(layers: tuple[StoredLayer, ...], rows: State, size: int) -> Masks:
    """The masks that `mask_tensors` was given, taken out of `rows`, from a file of `size` bytes.

    Raises ValueError where layers and rows do not fit together, or claim more weights than such a file may.
    """
    if len({layer.name for layer in layers}) != len(layers):
        raise ValueError("a layer is there twice")
    total = sum(math.prod(layer.shape) for layer in layers)
    if total > (most := limits.ticket_weights(size)):
        raise ValueError(f"says that it has {total:,} weights; {most:,} are the most that are read from its size")
    return Masks({layer.name: _mask(layer, rows.pop(f"mask/{place}")) for place, layer in enumerate(layers)})


def _mask(layer: StoredLayer, content: Tensor) -> Mask:
    if content.dtype != torch.uint8 or content.dim() != 1:
        raise ValueError(f"{layer.name}: its mask is no row of bytes")
    keep = mask_codes.decoded(layer.code, content.numpy(), math.prod(layer.shape))
    if keep.sum() != layer.kept:
        raise ValueError(f"{layer.name} does not keep {layer.kept} weights")
    return Mask(torch.from_numpy(keep).reshape(layer.shape))


def state_tensors(role: str, state: Mapping[str, Tensor], masks: Masks, kind: Values) -> State:
    """The tensors of a state, by which `state_in` knows them: kept values, and all that is never pruned."""
    found: State = {}
    for place, (name, mask) in enumerate(masks.items()):
        if name in state:
            rows, exponents = values.encoded(name, state[name], mask.keep, kind)
            found |= {f"{role}/{place}/{number}": row for number, row in enumerate(rows)}
            if exponents is not None:
                found[f"{role}/{place}/steps"] = exponents
    rest = {name: tensor for name, tensor in state.items() if name not in masks}
    return found | {f"{role}/rest/{name}": values.rest_as(tensor, kind) for name, tensor in rest.items()}


@dataclass(frozen=True)
class StoredWeight:
    """A layer's kept values as they lie in a file, which fit its mask."""

    rows: list[Tensor]
    steps: Tensor | None
    mask: Mask
    kind: Values

    def write(self, into: Tensor) -> None:
        """Makes `into`, a float32 tensor of the mask's shape, the weight: removed entries become 0."""
        dense = into if into.is_contiguous() else torch.empty(into.shape)
        values.write(self.rows, self.mask.keep, self.kind, self.steps, dense)
        if dense is not into:
            into.copy_(dense)


@dataclass(frozen=True)
class StoredState:
    """What a file has of a state: weights, not yet at their places (dense they may be gigabytes), and all else."""

    weights: dict[str, StoredWeight]
    rest: State


def state_in(role: str, rows: State, masks: Masks, kind: Values, places: tuple[int, ...]) -> StoredState:
    """The state that `state_tensors` was given, taken out of `rows`; weights of the layers at `places` alone.

    Raises ValueError, KeyError or IndexError where rows and masks do not fit together.
    """
    weights = {}
    names = list(masks)
    for place in places:
        count = sum(f"{role}/{place}/{number}" in rows for number in range(5))
        stored = [rows.pop(f"{role}/{place}/{number}") for number in range(count)]
        steps = rows.pop(f"{role}/{place}/steps", None)
        mask = masks[names[place]]
        values.check(stored, mask.keep, kind, steps)
        weights[names[place]] = StoredWeight(stored, steps, mask, kind)
    begin = f"{role}/rest/"
    rest = [name for name in rows if name.startswith(begin)]
    return StoredState(weights, {name.removeprefix(begin): rows.pop(name) for name in rest})
