"""Ticket files, written: `pack`. What could not be read again is not written."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tombola.compression.tickets import blocks
from tombola.compression.tickets.files import TicketFile, first_names, read_content
from tombola.compression.tickets.stored import (
    FORMAT,
    KIND,
    State,
    StoredStart,
    StoredTicket,
    StoredTrained,
    mask_tensors,
    state_tensors,
)
from tombola.compression.tickets.values import Values
from tombola.errors import ConfigError, ModelError, counted
from tombola.models.config import Spec
from tombola.models.factory import Factory
from tombola.models.folder import rebuilt
from tombola.models.saving import masks_of, state_of
from tombola.models.spec import ModelSpec
from tombola.models.tensors import content_sha256, same_bits
from tombola.pruning import Masks
from tombola.runs.atomic import write_bytes


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
        >>> from tombola import prune, unpack
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
    found = read_content(content, path)
    write_bytes(path, content)
    return found


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
    first = first_names(state)
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
    first = first_names(state)
    return {n: masks[first[n]].apply(tensor) if first[n] in masks else tensor for n, tensor in state.items()}


def _each_once(state: Mapping[str, Tensor]) -> State:
    """Of a tensor that several layers share the first name alone."""
    return {name: state[name] for name in dict.fromkeys(first_names(state).values())}
