"""`tombola pack` and `unpack`: what a folder has of a ticket, whoever wrote it, and a ticket file as a model folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tombola.compression.ticket import MASK, load_ticket
from tombola.compression.tickets.files import TicketFile, Which, read_ticket, unpack
from tombola.compression.tickets.writing import pack
from tombola.errors import ConfigError, RunFolderError, StorageError
from tombola.models import load_model, read_spec, save_model
from tombola.models.config import Spec
from tombola.models.folder import SPEC, holds
from tombola.pruning import Masks
from tombola.runs.folder import RunFolder
from tombola.studies.base.opened import read_result
from tombola.studies.lottery.extract import history_of, mode_of, round_at
from tombola.studies.lottery.networks import restored_ticket, trained_network
from tombola.studies.lottery.study import Lottery, open_lottery

NONE = "none"
"""Instead of a type of values: those that were learned are left out."""


@dataclass(frozen=True)
class Found:
    """A ticket in a folder. `from_seed` says that a `start` is expected to be what the seed gives."""

    spec: Spec
    masks: Masks
    history: dict[str, Any]
    trained: nn.Module | None = None
    start: nn.Module | None = None
    restart: str = "init"
    from_seed: bool = False


def pack_folder(
    folder: Path,
    out: Path,
    *,
    values: str | None = None,
    with_start: bool = False,
    density: float | None = None,
    replicate: int | None = None,
    mode: str | None = None,
    factory: str | None = None,
) -> TicketFile:
    """Packs what `folder` is into the file `out`: a model folder, a run of `tombola imp`, or its `results`.

    Learned values are stored as `values`, by default in float32. The weights that a ticket restarts from go with them
    where the seed gives them, for that takes nothing, and `with_start` in any case; of folders that have only these,
    they are what is stored. `density`, `replicate` and `mode` choose among a run's tickets, by default the one of its
    verdict. Raises an error in one line for a folder that is none of these, and for options that mean nothing there.
    """
    chosen = {"--density": density, "--replicate": replicate, "--rewind": mode}
    if (odd := [option for option, value in chosen.items() if value is not None]) and (folder / SPEC).exists():
        raise ConfigError(f"{odd[0]}: {folder} is one ticket, only a run of tombola imp has several; leave it out")
    found = found_in(folder, density=density, replicate=replicate or 0, mode=mode, factory=factory)
    trained, start = found.trained, found.start
    if trained is None and values not in (None, NONE):
        raise ConfigError(
            f"--values {values}: {folder} holds the weights that a ticket restarts from, which are stored exactly; "
            "leave it out"
        )
    if with_start and start is None:
        raise ConfigError(f"--start: {folder} does not hold the weights that it restarted from; leave it out")
    if values == NONE:
        trained = None
    elif trained is not None and not (with_start or found.from_seed):
        start = None
    return pack(
        out,
        found.spec,
        found.masks,
        trained=trained,
        start=start,
        values=values if trained is not None and values is not None else "float32",
        restart=found.restart,
        history=found.history,
        factory=factory,
    )


def found_in(
    path: Path,
    *,
    density: float | None = None,
    replicate: int = 0,
    mode: str | None = None,
    factory: str | None = None,
) -> Found:
    """The ticket or the network in a model folder, a run of `tombola imp`, its `results`, or a ticket file.

    `density`, `replicate` and `mode` choose among a run's tickets. Raises an error in one line for anything else.
    """
    if path.is_file():
        file = read_ticket(path)
        model, spec, masks = unpack(file.path, None, factory)
        if file.trained is not None:
            return Found(spec, masks, file.history, trained=model)
        return Found(spec, masks, file.history, start=model)
    if (path / SPEC).exists():
        return _of_folder(path, factory)
    return _of_run(path, density, replicate, mode, factory)


def unpack_to(file: Path, out: Path, which: Which | None = None, factory: str | None = None) -> TicketFile:
    """Writes the network of a ticket file to the model folder `out`, which must not hold another model."""
    ticket = read_ticket(file)
    model, spec, masks = unpack(file, which, factory)
    start = ticket.start if which == "start" or ticket.trained is None else None
    history = dict(ticket.history)
    if start is not None:
        history["restart"] = start.restart
    elif ticket.trained is not None:
        history["values"] = str(ticket.trained.values)
    if not holds(out, spec, model, masks, history, factory):  # or the same command was stopped when it had written it
        save_model(out, spec, model, masks, history)
    return ticket


def _of_folder(folder: Path, factory: str | None) -> Found:
    """Of a model folder, or of the files that a run leaves of its ticket."""
    if (folder / MASK).exists():
        model, spec, masks, history = load_ticket(folder, factory)
    else:
        _, history = read_spec(folder)
        model, spec, found = load_model(folder, factory)
        masks = Masks.full(model) if found is None else found
    restart = history.pop("restart", None)
    if restart is None:
        return Found(spec, masks, history, trained=model)
    return Found(spec, masks, history, start=model, restart=str(restart))


def _of_run(root: Path, density: float | None, replicate: int, mode: str | None, factory: str | None) -> Found:
    if not RunFolder(root).manifest.exists():
        raise RunFolderError(f"{root}: no model folder (it has no {SPEC}), no run, and no results of one")
    opened = open_lottery(root)
    chosen = mode_of(opened.config, mode)
    planned = opened.rounds[_ticket_round(opened)] if density is None else round_at(opened.rounds, density)
    at = (opened.folder, chosen, replicate, planned.index)
    try:
        start, spec, masks = restored_ticket(*at, factory)
        trained, _, _ = trained_network(*at, factory=factory)
    except StorageError as error:
        raise RunFolderError(
            f"{root}: replicate {replicate} has no trained ticket at density {planned.density:.3g} (yet): {error}"
        ) from None
    return Found(
        spec,
        masks,
        history_of(opened, replicate, planned, masks),
        trained=trained,
        start=start,
        restart=str(chosen),
        from_seed=chosen.kind == "init" and opened.config.start is None,
    )


def _ticket_round(opened: Lottery) -> int:
    return read_result(opened).ticket_round
