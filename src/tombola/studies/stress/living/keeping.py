"""The network at the end of its life, really smaller, as a folder to load again."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from tombola.compression.removal.heads import RemovedHeads
from tombola.errors import ModelError
from tombola.models.causal.pruned import save_pruned_language_model
from tombola.studies.stress.living.cell import Living
from tombola.studies.stress.living.state import State
from tombola.studies.stress.living.units import made_smaller

MODEL = "model"
"""Of its folder beside the units of the cell."""


def keep_model(living: Living, state: State) -> None:
    """Writes it anew: an ordinary folder where all layers are equal and a config can say so, else one with a record."""
    folder = living.spec.home / MODEL
    smaller = made_smaller(state.network, living.config.structure, state.keep)
    if living.config.equal:
        with contextlib.suppress(ModelError):  # of a family whose config ties the heads to the width of the model
            _written(folder, living, smaller, equal=True)
            return
    _written(folder, living, smaller, equal=False)


def _written(folder: Path, living: Living, smaller: RemovedHeads, equal: bool) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of a unit that is lived again
    save_pruned_language_model(folder, smaller.model.cpu(), smaller.removal, living.subject.tokenizer, equal)
