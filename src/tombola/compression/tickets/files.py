"""Ticket files, read: what one holds without its network being made, and `unpack`, which makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tombola.compression.tickets import blocks, mask_codes
from tombola.compression.tickets.stored import (
    StoredStart,
    StoredState,
    StoredTicket,
    StoredTrained,
    facts_of,
    masks_in,
    state_in,
)
from tombola.compression.tickets.values import Values
from tombola.errors import ConfigError, ModelError, PruningError, StorageError, one_line
from tombola.models.config import Spec
from tombola.models.factory import Factory
from tombola.models.folder import fill, parse_spec, rebuilt
from tombola.models.saving import state_of
from tombola.models.spec import ModelSpec, numbers_of_whole, without_memory
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks
from tombola.pruning.prunable import prunable_shapes
from tombola.runs import limits
from tombola.runs.atomic import read_bytes

Which = Literal["trained", "start"]
_DAMAGE = (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, OverflowError, PruningError)


@dataclass(frozen=True, eq=False, repr=False)
class TicketFile:
    """What a ticket file holds: `start` and `trained` say which weights, None of those that it has not."""

    path: Path
    content: bytes
    spec: Spec
    history: dict[str, Any]
    masks: Masks
    stored: StoredTicket
    states: dict[Which, StoredState]

    def __repr__(self) -> str:
        return f"TicketFile({str(self.path)!r}, {self.bytes:,} bytes, {self.masks.kept:,} of {self.masks.total:,} kept)"

    @property
    def start(self) -> StoredStart | None:
        return self.stored.start

    @property
    def trained(self) -> StoredTrained | None:
        return self.stored.trained

    @property
    def bytes(self) -> int:
        return len(self.content)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes that each part takes in the file: `masks`, `trained`, `start`, and `all else`."""
        found = {"masks": 0, "trained": 0, "start": 0, "all else": 0}
        for name, size in blocks.sizes(self.content).items():
            part = name.partition("/")[0]
            found["masks" if part == "mask" else part if part in found else "all else"] += size
        return found

    @property
    def mask_entropy(self) -> float:
        """Bytes that no code beats on average, each layer's density being known (see `mask_codes.entropy`)."""
        return sum(mask_codes.entropy(mask.total, mask.kept) for mask in self.masks.values())

    @property
    def dense_bytes(self) -> int | None:
        """What all tensors of the network take, zeros included; None where only its owner's code knows them."""
        if not isinstance(self.spec, ModelSpec):
            return None
        return sum(tensor.nbytes for tensor in without_memory(self.spec).state_dict().values())


def read_ticket(path: Path | str) -> TicketFile:
    """What a ticket file holds. No network is made.

    Args:
        path: The file that `pack` wrote.

    Returns:
        TicketFile: spec, history, masks and sizes.

    Raises:
        ModelError: for a file that is missing, damaged, of another kind or of a later format.

    Examples:
        >>> import tempfile
        >>> from tombola import pack, prune
        >>> from tombola.models import ModelSpec, build
        >>> spec = ModelSpec(input_shape=(1, 28, 28), classes=10, seed=0)
        >>> file = pack(Path(tempfile.mkdtemp()) / "a.ticket", spec, prune(build(spec), 0.9))
        >>> read_ticket(file.path).masks == file.masks
        True
    """
    try:
        return read_content(read_bytes(Path(path), limits.TENSORS), Path(path))
    except StorageError as error:
        raise ModelError(str(error)) from None


def unpack(
    path: Path | str, which: Which | None = None, factory: str | Factory | None = None
) -> tuple[nn.Module, Spec, Masks]:
    """The network in a ticket file, as `load_model` gives that of a folder.

    Args:
        path: The file that `pack` wrote.
        which: `trained`, or `start` for the weights that it restarts from; by default the trained ones where the file
            has any.
        factory: A function without arguments that makes a network of your own, or its `package.module:function`.

    Returns:
        The model on the CPU, in training mode, removed weights 0; its spec; its masks.

    Raises:
        ModelError: for a file that is damaged or has no such weights, a network that needs its factory, and a seed
            that gives other weights here than where the file was written.

    Examples:
        See `pack`.
    """
    file = read_ticket(path)
    which = which or ("start" if file.trained is None else "trained")
    if which not in file.states:
        has = " and ".join(file.states)
        raise ModelError(f"{path}: holds no {which} weights, only {has}")
    model = rebuilt(file.spec, factory, str(path))
    try:
        masks = file.masks.of(model)
        masks.apply_(model)
        _fill(model, file, which)
        state = state_of(file.spec, model)
    except (ModelError, PruningError, RuntimeError, KeyError) as error:
        raise ModelError(f"{path}: does not make the network of its spec: {one_line(error)}") from None
    if which == "start" and file.start is not None and content_sha256(state) != file.start.sha256:
        raise ModelError(
            f"{path}: the seed gives other weights here than where the file was written (Tombola "
            f"{file.stored.tombola}, {file.spec.versions}); unpack it there, or pack a start that was read from a file"
        )
    return model, file.spec, masks


def read_content(content: bytes, path: Path) -> TicketFile:
    """What `read_ticket` gives, of the content of `path`."""
    found = blocks.unpacked(content, path)
    if found.sha256 is None:
        raise StorageError(f"{path}: carries no checksum of Tombola's, the file is another's or was altered")
    try:
        stored = facts_of(found.facts, str(path))
        spec = parse_spec(stored.model, str(path))
    except ConfigError as error:
        raise ModelError(str(error)) from None
    rows = dict(found.tensors)
    states: dict[Which, StoredState] = {}
    try:
        masks = masks_in(stored.layers, rows, len(content))
        if isinstance(spec, ModelSpec):
            _refuse_other_shapes(masks, spec, len(content))
        if stored.trained is not None:
            every = tuple(range(len(masks)))
            states["trained"] = state_in("trained", rows, masks, stored.trained.values, every)
        if stored.start is not None:
            states["start"] = state_in("start", rows, masks, Values.FLOAT32, stored.start.stored)
        if rows or not states:
            raise ValueError(f"{sorted(rows)[0]} belongs to nothing" if rows else "it has no weights at all")
    except (ModelError, *_DAMAGE) as error:
        raise ModelError(f"{path}: no ticket that can be unpacked: {one_line(error)}") from None
    return TicketFile(path, content, spec, stored.history, masks, stored, states)


def first_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """By each name of a tensor the first that it has."""
    found: dict[object, str] = {}
    keys = {name: (tensor.data_ptr(), tensor.shape) if tensor.numel() else name for name, tensor in state.items()}
    return {name: found.setdefault(key, name) for name, key in keys.items()}


def _fill(model: nn.Module, file: TicketFile, which: Which) -> None:
    """Gives `model` the stored state: weights at their places, then all else. What a start has not is the seed's."""
    stored = file.states[which]
    for name, parameter in file.masks.parameters_of(model).items():
        if name in stored.weights:
            if parameter.dtype != torch.float32:
                raise ModelError(f"{name} is {torch.float32}, the spec says {parameter.dtype}")
            with torch.no_grad():
                stored.weights[name].write(parameter)
    own = state_of(file.spec, model)
    there = {name: own[name] for name, first in first_names(own).items() if which == "start" or first in stored.weights}
    rest = {name: _in_type(tensor, own.get(name)) for name, tensor in stored.rest.items()}
    fill(model, {**there, **rest})


def _in_type(tensor: Tensor, expected: Tensor | None) -> Tensor:
    """Half precision was the file's where the model has single."""
    to_single = expected is not None and expected.dtype == torch.float32 and tensor.dtype == torch.float16
    return tensor.float() if to_single else tensor


def _refuse_other_shapes(masks: Masks, spec: ModelSpec, size: int) -> None:
    """Before a network of that size is built, or the larger one that units were removed from."""
    expected = {name: tuple(shape) for name, shape in prunable_shapes(without_memory(spec)).items()}
    found = {name: tuple(mask.shape) for name, mask in masks.items()}
    if expected != found:
        odd = next(name for name in [*expected, *found] if expected.get(name) != found.get(name))
        raise ModelError(f"{odd} is {found.get(odd)}, the spec says {expected.get(odd)}")
    most = limits.ticket_whole(size)
    if spec.removed is not None and (whole := numbers_of_whole(spec)) > most:
        raise ModelError(
            f"the spec says {whole:,} numbers before units were removed, {most:,} are the most for its size"
        )
