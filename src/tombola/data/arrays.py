"""Examples that are arrays already, split once and for all: what Python code hands over, in one .npz file."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tombola.data.dataset import Examples, RawData
from tombola.data.npz import array_names, read_arrays
from tombola.errors import DataError
from tombola.runs.atomic import write_bytes

PARTS = ("train", "validation", "test")
NAMES = tuple(f"{part}_{what}" for part in PARTS for what in ("inputs", "targets"))


def arrays(folder: Path) -> RawData:
    """Your own arrays in an .npz file, split already: train_inputs, train_targets, and so for validation and test.

    `folder` is the file. Inputs are float32, one to three axes after that of the examples, and stay as they are;
    targets are classes, integers (n,). All replicates share the split.
    """
    there = array_names(folder)
    if missing := [name for name in NAMES if name not in there]:
        raise DataError(f"{folder}: no array {missing[0]}; wanted are {', '.join(NAMES)}")
    found = dict(zip(NAMES, read_arrays(folder, NAMES), strict=True))
    parts = [_part(folder, found, part) for part in PARTS]
    for part, examples in zip(PARTS[1:], parts[1:], strict=True):
        if examples.inputs.shape[1:] != parts[0].inputs.shape[1:]:
            raise DataError(
                f"{folder}: {part}_inputs are of shape {tuple(examples.inputs.shape[1:])}, train_inputs of "
                f"{tuple(parts[0].inputs.shape[1:])}"
            )
    train, validation, test = parts
    both = Examples(torch.cat([train.inputs, validation.inputs]), torch.cat([train.targets, validation.targets]))
    return RawData("arrays", both, test, f"sha256:{_checksum(found)}", validation=len(validation))


def to_store(folder: Path, parts: tuple[Examples, Examples, Examples]) -> tuple[Path, bytes]:
    """The file in `folder` that training, validation and test examples belong into, named by its content; and that."""
    content = _packed(parts)
    return folder.resolve() / f"data-{hashlib.sha256(content).hexdigest()[:12]}.npz", content


def is_named_by_content(path: Path) -> bool:
    """Whether a file has a name as `to_store` gives it."""
    return re.fullmatch(r"data-[0-9a-f]{12}\.npz", path.name) is not None


def write_arrays(path: Path, parts: tuple[Examples, Examples, Examples]) -> None:
    """Writes training, validation and test examples as `arrays` reads them, all or nothing."""
    write_bytes(path, _packed(parts))


def _packed(parts: tuple[Examples, Examples, Examples]) -> bytes:
    """The same bytes for the same numbers: NumPy writes no dates."""
    tensors = [tensor for part in parts for tensor in (part.inputs, part.targets)]
    content: dict[str, Any] = {name: tensor.detach().cpu().numpy() for name, tensor in zip(NAMES, tensors, strict=True)}
    buffer = io.BytesIO()
    np.savez(buffer, **content)
    return buffer.getvalue()


def _part(path: Path, found: dict[str, NDArray[np.generic]], part: str) -> Examples:
    inputs, targets = found[f"{part}_inputs"], found[f"{part}_targets"]
    if 0 in inputs.shape:
        raise DataError(f"{path}: {part}_inputs are empty, their shape is {inputs.shape}")
    if inputs.dtype != np.float32 or not 2 <= inputs.ndim <= 4:
        raise DataError(
            f"{path}: {part}_inputs are {inputs.dtype} of shape {inputs.shape}; wanted are examples of float32 "
            "numbers, with one to three axes each"
        )
    if not np.issubdtype(targets.dtype, np.integer) or targets.ndim != 1:
        raise DataError(
            f"{path}: {part}_targets are {targets.dtype} of shape {targets.shape}; wanted are integers (n,)"
        )
    if len(inputs) != len(targets):
        raise DataError(f"{path}: {len(inputs)} {part}_inputs but {len(targets)} {part}_targets")
    if targets.min() < 0:
        raise DataError(f"{path}: {part}_targets begin at {targets.min()}; number the classes 0, 1, 2, ...")
    if not np.isfinite(inputs).all():
        raise DataError(f"{path}: {part}_inputs have NaN or infinite numbers")
    return Examples(_tensor(inputs), _tensor(targets.astype(np.int64)))


def _tensor(array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(array.copy())  # of memory that can be written


def _checksum(found: dict[str, NDArray[np.generic]]) -> str:
    """Over names, types, shapes and numbers, so that it names the content and not the file."""
    digest = hashlib.sha256()
    for name in NAMES:
        digest.update(f"{name} {found[name].dtype.str} {found[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(found[name]).tobytes())
    return digest.hexdigest()
