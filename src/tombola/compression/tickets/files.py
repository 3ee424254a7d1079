"""Ticket files, written and read: `pack`, `unpack`, and what a file holds without its network being made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tombola.compression.tickets import blocks, mask_codes
from tombola.compression.tickets.stored import (
    FORMAT,
    KIND,
    State,
    StoredStart,
    StoredTicket,
    StoredTrained,
    facts_of,
    mask_tensors,
    masks_in,
    state_in,
    state_tensors,
)
from tombola.compression.tickets.values import Values
from tombola.errors import ConfigError, ModelError, PruningError, StorageError, counted, one_line
from tombola.models.config import Spec
from tombola.models.factory import Factory
from tombola.models.folder import fill, parse_spec, rebuilt
from tombola.models.saving import masks_of, state_of
from tombola.models.spec import UNBUILT, ModelSpec, numbers_of_whole, without_memory
from tombola.models.tensors import content_sha256, same_bits
from tombola.pruning import Masks
from tombola.pruning.prunable import prunable_shapes
from tombola.runs import limits
from tombola.runs.atomic import read_bytes, write_bytes

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
    states: dict[Which, State]

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


def pack(
    path: Path | str,
    spec: Spec,
    masks: Masks,
    *,
    trained: nn.Module | None = None,
    start: nn.Module | None = None,
    values: Values | str = Values.FLOAT32,
    restart: str = "init",
    history: Mapping[str, Any] | None = None,
    factory: str | Factory | None = None,
) -> TicketFile:
    """Writes a ticket to one small file: its masks, and the weights that are given.

    Without weights the ticket restarts from those of the spec's seed, and the file is a few kilobytes. Of a `start`
    only what the seed does not give is stored, exactly.

    Args:
        path: The file, such as `lenet.ticket`; what is there is replaced.
        spec: What the network is rebuilt from.
        masks: Those of the ticket.
        trained: The network that it became; its removed weights are 0.
        start: The network that it restarts from; its removed weights may have any values.
        values: How kept values of `trained` are stored: `float32` exactly, `float16`, or `int8` with a step for
            each output channel, which rounds them by about 1 %.
        restart: What `start` is called: `init`, `step:500it`.
        history: JSON that is kept in the file: where the ticket comes from.
        factory: The function that makes a network of your own, so that its seed's weights need not be stored.

    Returns:
        TicketFile: what the file holds; `bytes`, `sizes` and `mask_entropy` say how well it is packed.

    Raises:
        ModelError: for masks or weights of another network, and for what could not be read again.
        StorageError: where the file cannot be written.

    Examples:
        >>> import tempfile
        >>> from tombola import prune
        >>> from tombola.models import ModelSpec, build
        >>> spec = ModelSpec(input_shape=(1, 28, 28), classes=10, seed=0)
        >>> file = pack(Path(tempfile.mkdtemp()) / "a.ticket", spec, prune(build(spec), 0.9))
        >>> file.bytes < 20_000 < file.dense_bytes
        True
        >>> model, _, masks = unpack(file.path)
        >>> masks.removed_nonzeros(model), round(masks.sparsity, 2)
        (0, 0.9)
    """
    path, values = Path(path), _values(values)
    if trained is None and values != Values.FLOAT32:
        raise ConfigError(f"values={str(values)!r} is how a trained network is stored: give one, or leave it out")
    seeded = _of_seed(spec, factory, needed=trained is None and start is None)
    if trained is None and start is None:
        start = seeded
    learned = None if trained is None else _state(spec, trained)
    first = None if start is None else _state(spec, start)
    masks = Masks.from_tensors(masks_of(trained or start, masks)).cpu()  # type: ignore[arg-type]
    layers, tensors = mask_tensors(masks)
    said: dict[str, Any] = {"start": None, "trained": None}
    if learned is not None:
        _refuse_unmasked(masks, learned)
        tensors |= state_tensors("trained", _each_once(learned), masks, values)
        said["trained"] = StoredTrained(values=values)
    if first is not None:
        once, first = _each_once(first), _masked(first, masks)
        of_seed = None if seeded is None else _masked(_state(spec, seeded), masks)
        own = {name: first[name] for name in once if of_seed is None or not same_bits(first[name], of_seed[name])}
        tensors |= state_tensors("start", own, masks, Values.FLOAT32)
        places = tuple(place for place, name in enumerate(masks) if name in own)
        said["start"] = StoredStart(sha256=content_sha256(first), restart=restart, stored=places)
    ticket = StoredTicket(
        kind=KIND,
        format=FORMAT,
        tombola=version("tombola"),
        model=spec.model_dump(mode="json"),
        history=dict(history or {}),
        layers=layers,
        **said,
    )
    content = blocks.packed(tensors, ticket.model_dump(mode="json"))
    found = _read(content, path)  # what could not be read again is not written
    write_bytes(path, content)
    return found


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
        >>> from tombola import prune
        >>> from tombola.models import ModelSpec, build
        >>> spec = ModelSpec(input_shape=(1, 28, 28), classes=10, seed=0)
        >>> file = pack(Path(tempfile.mkdtemp()) / "a.ticket", spec, prune(build(spec), 0.9))
        >>> read_ticket(file.path).masks == file.masks
        True
    """
    try:
        return _read(read_bytes(Path(path), limits.TENSORS), Path(path))
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
        own = state_of(file.spec, model)
        stored = {name: _in_type(tensor, own.get(name)) for name, tensor in file.states[which].items()}
        of_seed = {name: own[name] for name, first in _first_names(own).items() if first not in stored}
        fill(model, stored if which == "trained" else {**of_seed, **stored})
        state = state_of(file.spec, model)
    except (ModelError, PruningError, RuntimeError, KeyError) as error:
        raise ModelError(f"{path}: does not make the network of its spec: {one_line(error)}") from None
    if which == "start" and file.start is not None and content_sha256(state) != file.start.sha256:
        raise ModelError(
            f"{path}: the seed gives other weights here than where the file was written (Tombola "
            f"{file.stored.tombola}, {file.spec.versions}); unpack it there, or pack a start that was read from a file"
        )
    return model, file.spec, masks


def _read(content: bytes, path: Path) -> TicketFile:
    found = blocks.unpacked(content, path)
    if found.sha256 is None:
        raise StorageError(f"{path}: carries no checksum of Tombola's, the file is another's or was altered")
    try:
        stored = facts_of(found.facts, str(path))
        spec = parse_spec(stored.model, str(path))
    except ConfigError as error:
        raise ModelError(str(error)) from None
    rows = dict(found.tensors)
    states: dict[Which, State] = {}
    try:
        masks = masks_in(stored.layers, rows, len(content))
        if isinstance(spec, ModelSpec):
            _refuse_other_shapes(masks, spec, limits.weights(len(content)))
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


def _values(values: Values | str) -> Values:
    try:
        return Values(values)
    except ValueError:
        raise ConfigError(f"values: {', '.join(Values)}, not {values!r:.40}") from None


def _of_seed(spec: Spec, factory: str | Factory | None, needed: bool) -> nn.Module | None:
    """The network as the seed makes it; None where only code that is not named could."""
    if needed or isinstance(spec, ModelSpec) or factory is not None:
        return rebuilt(spec, factory, "pack")
    return None


def _state(spec: Spec, model: nn.Module) -> State:
    """A model's state on the CPU; what layers share stays shared."""
    state = state_of(spec, model)
    first = _first_names(state)
    moved = {name: state[name].cpu() for name in dict.fromkeys(first.values())}
    return {name: moved[first[name]] for name in state}


def _refuse_unmasked(masks: Masks, state: State) -> None:
    odd = sum(int((state[name][~mask.keep] != 0).sum()) for name, mask in masks.items())
    if odd:
        raise ModelError(
            f"{counted(odd, 'removed weight')} of the trained network {'is' if odd == 1 else 'are'} not 0: train it "
            "under its masks, or call masks.apply_(model)"
        )


def _masked(state: Mapping[str, Tensor], masks: Masks) -> State:
    """With removed weights 0, under each name of a tensor that several layers share."""
    first = _first_names(state)
    return {n: masks[first[n]].apply(tensor) if first[n] in masks else tensor for n, tensor in state.items()}


def _each_once(state: Mapping[str, Tensor]) -> State:
    """Of a tensor that several layers share the first name alone."""
    return {name: state[name] for name in dict.fromkeys(_first_names(state).values())}


def _first_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """By each name of a tensor the first that it has."""
    found: dict[object, str] = {}
    keys = {name: (tensor.data_ptr(), tensor.shape) if tensor.numel() else name for name, tensor in state.items()}
    return {name: found.setdefault(key, name) for name, key in keys.items()}


def _in_type(tensor: Tensor, expected: Tensor | None) -> Tensor:
    """Half precision was the file's where the model has single."""
    to_single = expected is not None and expected.dtype == torch.float32 and tensor.dtype == torch.float16
    return tensor.float() if to_single else tensor


def _refuse_other_shapes(masks: Masks, spec: ModelSpec, most: int) -> None:
    """Before a network of that size is built, or the larger one that units were removed from."""
    expected = {name: tuple(shape) for name, shape in prunable_shapes(without_memory(spec)).items()}
    found = {name: tuple(mask.shape) for name, mask in masks.items()}
    if expected != found:
        odd = next(name for name in [*expected, *found] if expected.get(name) != found.get(name))
        raise ModelError(f"{odd} is {found.get(odd)}, the spec says {expected.get(odd)}")
    if (whole := numbers_of_whole(spec)) > max(UNBUILT, most):
        raise ModelError(
            f"the spec says {whole:,} numbers before units were removed, {most:,} are the most for its size"
        )
