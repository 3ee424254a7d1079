"""Masks in a file of their own: safetensors, a bit a weight. Model folders hold the same file."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from tombola.errors import PruningError, StorageError
from tombola.models.tensors import load_tensors, save_tensors
from tombola.pruning import Mask, Masks


def save_masks(path: Path | str, masks: Masks) -> None:
    """Writes masks to a file, all or nothing: safetensors with a bit a weight and a checksum.

    Args:
        path: The file, such as `masks.safetensors`; what is there is replaced.
        masks: What `prune` gave.

    Raises:
        PruningError: where `masks` are none.
        StorageError: where the file cannot be written.

    Examples:
        >>> import tempfile, torch
        >>> from tombola import prune
        >>> masks = prune(torch.nn.Linear(10, 10), 0.9)
        >>> path = Path(tempfile.mkdtemp()) / "masks.safetensors"
        >>> save_masks(path, masks)
        >>> load_masks(path) == masks
        True
    """
    if not isinstance(masks, Masks):
        raise PruningError(f"`masks` are Masks, such as prune gives, not a {type(masks).__name__}")
    save_tensors(Path(path), masks.to_tensors())


def load_masks(path: Path | str) -> Masks:
    """The masks in a file that `save_masks` wrote, or in the `masks.safetensors` of a model folder.

    Args:
        path: The file.

    Returns:
        The masks by parameter name; `masks.of(model)` puts them into a model's order.

    Raises:
        StorageError: when the file is missing, damaged, or holds other tensors than masks.

    Examples:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "masks.safetensors"
        >>> save_masks(path, Masks.from_tensors({"weight": torch.eye(2).bool()}))
        >>> load_masks(path)
        Masks(1 layers, 2 of 4 kept)
    """
    tensors, _ = load_tensors(Path(path))
    return Masks({name: _mask(Path(path), name, tensor) for name, tensor in tensors.items()})


def _mask(path: Path, name: str, tensor: Tensor) -> Mask:
    try:
        return Mask(tensor)
    except PruningError as error:
        raise StorageError(f"{path}: holds no masks: {name}: {error}") from None
