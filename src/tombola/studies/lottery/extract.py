"""`tombola extract`: a ticket of a finished or running study as a model folder."""

from __future__ import annotations

from pathlib import Path

from tombola.errors import ConfigError, RunFolderError, StorageError
from tombola.models import build, save_model
from tombola.runs.configs import load_config
from tombola.runs.folder import RunFolder
from tombola.studies.lottery.artefacts import replicate_spec, stored_ticket
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.plan import Round, plan_rounds
from tombola.studies.lottery.replicate import layer_sizes
from tombola.studies.lottery.rewind import rewind

NEAR = 0.05
"""A wanted density is taken to mean the round whose density is within this share of it."""


def extract(run: Path, density: float, out: Path, *, reinit: int | None = None, replicate: int = 0) -> Round:
    """Writes the ticket of `replicate` at `density` (a share) to the model folder `out`; returns its round.

    The weights are those it restarts from, W_0 under the mask, or fresh ones from the seed `reinit`. Raises
    an error when the run has no such density, and when `out` holds a model already.
    """
    folder = RunFolder(run)
    data = folder.read_manifest()["must_match"].get("data")
    config = load_config(folder.config, LotteryConfig)
    try:
        spec = replicate_spec(config, data, replicate)
    except (KeyError, TypeError, ValueError):
        raise RunFolderError(f"{folder.manifest}: does not say which data, it is damaged") from None
    planned = _round_at(plan_rounds(config.pruning, layer_sizes(build(spec))), density)
    try:
        start, masks = stored_ticket(folder, spec, replicate, planned.index)
    except StorageError as error:
        raise RunFolderError(
            f"{run}: replicate {replicate} has no stored ticket at density {planned.density:.3g} (yet): {error}"
        ) from None
    if reinit is not None:
        spec = spec.model_copy(update={"seed": reinit})
        start = build(spec).state_dict()
    model = build(spec)
    rewind(model, start, masks)
    history = {
        "run": run.resolve().name,
        "replicate": replicate,
        "round": planned.index,
        "density": masks.density,
        "restart": config.rewind if reinit is None else f"re-initialised with seed {reinit}",
    }
    save_model(out, spec, model, masks, history)
    return planned


def _round_at(rounds: list[Round], density: float) -> Round:
    if not 0 < density <= 1:
        raise ConfigError(f"--density {density:g}: a density is the share of weights kept, above 0 and at most 1")
    nearest = min(rounds, key=lambda planned: abs(planned.density - density))
    if abs(nearest.density - density) > NEAR * density:
        known = ", ".join(f"{planned.density:.3g}" for planned in rounds)
        raise ConfigError(f"--density {density:g}: this run has no round near it; its densities: {known}")
    return nearest
