"""`tombola extract`: a ticket of a finished or running study as a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tombola.data import split_record
from tombola.errors import ConfigError, RunFolderError, StorageError
from tombola.models import save_model
from tombola.models.folder import holds
from tombola.models.own import initial_network
from tombola.pruning import Masks
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.networks import blank, replicate_seed, restored_ticket
from tombola.studies.lottery.plan import Round
from tombola.studies.lottery.rewind import Rewind, rewind, unsaved_buffers
from tombola.studies.lottery.study import Lottery, open_lottery

NEAR = 0.05
"""A wanted density is taken to mean the round whose density is within this fraction of it."""


def extract(
    run: Path,
    density: float,
    out: Path,
    *,
    reinit: int | None = None,
    replicate: int = 0,
    mode: str | None = None,
    factory: str | None = None,
) -> Round:
    """Writes the ticket of `replicate` at `density` (a fraction) to the model folder `out`; returns its round.

    The weights are those it restarts from, W_0 under the mask unless the run rewinds elsewhere, or fresh ones
    from the seed `reinit`. `mode` chooses one of the run's modes of rewinding, by default the first; `factory` names
    the function that makes a network of somebody's own. Raises an error when the run has no such density, and when
    `out` holds another model already.
    """
    opened = open_lottery(run)
    chosen = mode_of(opened.config, mode)
    planned = round_at(opened.rounds, density)
    try:
        model, spec, masks = restored_ticket(opened.folder, chosen, replicate, planned.index, factory)
    except StorageError as error:
        raise RunFolderError(
            f"{run}: replicate {replicate} has no stored ticket at density {planned.density:.3g} (yet): {error}"
        ) from None
    if reinit is not None:
        spec = spec.model_copy(update={"seed": reinit})
        fresh = initial_network(spec, blank(spec), factory).state_dict()
        rewind(model, fresh, masks, unsaved_buffers(model))
    restart = str(chosen) if reinit is None else f"re-initialised with seed {reinit}"
    history = {**history_of(opened, replicate, planned, masks), "restart": restart}
    if not holds(out, spec, model, masks, history, factory):  # or the same command was stopped when it had written it
        save_model(out, spec, model, masks, history)
    return planned


def history_of(opened: Lottery, replicate: int, planned: Round, masks: Masks) -> dict[str, Any]:
    """Where a ticket comes from."""
    return {
        "run": opened.folder.root.resolve().name,
        "replicate": replicate,
        "round": planned.index,
        "density": masks.density,
        "data": _data_record(opened, replicate),
    }


def _data_record(opened: Lottery, replicate: int) -> dict[str, Any]:
    """Which examples the ticket's network has seen; a task of one's own has its own split."""
    config, checksum = opened.config, opened.data["checksum"]
    if config.task is not None:
        return {"task": config.task.title, "checksum": checksum}
    return split_record(config.images, replicate_seed(config, replicate), checksum)


def mode_of(config: LotteryConfig, mode: str | None) -> Rewind:
    """The mode of rewinding called `mode`, or the run's first; ConfigError when the run has no such mode."""
    try:
        name = config.rewind[0] if mode is None else str(Rewind.parse(mode))
    except ValueError as error:
        raise ConfigError(f"--rewind {mode}: {error}") from None
    if name not in config.rewind:
        raise ConfigError(f"--rewind {mode}: this run rewinds to {', '.join(config.rewind)}")
    return Rewind.parse(name)


def round_at(rounds: list[Round], density: float) -> Round:
    """The round nearest to `density`; ConfigError when none is near."""
    if not 0 < density <= 1:
        raise ConfigError(f"--density {density:g}: a density is the fraction of weights kept, above 0 and at most 1")
    nearest = min(rounds, key=lambda planned: abs(planned.density - density))
    if abs(nearest.density - density) > NEAR * density:
        known = ", ".join(f"{planned.density:.3g}" for planned in rounds)
        raise ConfigError(f"--density {density:g}: this run has no round near it; its densities: {known}")
    return nearest
