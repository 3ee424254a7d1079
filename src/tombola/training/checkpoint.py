"""Checkpoints inside a training: everything from which it ends as if it had never been interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tombola.errors import StorageError
from tombola.models.tensors import load_own, save_tensors


def save_checkpoint(
    path: Path, fingerprint: str, device: str, tensors: Mapping[str, Tensor], facts: dict[str, Any]
) -> None:
    """Writes a checkpoint atomically. `fingerprint` names the training it belongs to, `device` where it ran."""
    save_tensors(path, tensors, {"fingerprint": fingerprint, "device": device, **facts})


def load_checkpoint(path: Path, fingerprint: str, device: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors and facts of a checkpoint, or None where there is none yet.

    Raises StorageError when the file is damaged or belongs to another training, or to another device.
    """
    if not path.exists():
        return None
    try:
        tensors, facts = load_own(path)
    except StorageError as error:
        raise StorageError(f"{error}; delete this checkpoint to repeat its training from the start") from None
    if facts.get("fingerprint") != fingerprint:
        raise StorageError(
            f"{path}: a checkpoint of another training, or of your own code before an edit; delete it to repeat this "
            "one"
        )
    if facts["device"] != device:
        raise StorageError(
            f"{path}: a checkpoint of a training on {facts['device']}, and this one is on {device}, which computes "
            "other bits; continue it there, or delete it to repeat the training here"
        )
    return tensors, facts
