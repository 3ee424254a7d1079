"""Weights from files of other makers: safetensors, or torch's `.pt` read as data, see `torch_files`. No code is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tombola.errors import ModelError
from tombola.models.pickles import NotWeightsError, Opaque
from tombola.models.states import named_for, state_dict_of
from tombola.models.tensors import SIZE_LIMIT, load_tensors
from tombola.models.torch_files import read_torch
from tombola.runs.atomic import read_bytes
from tombola.runs.kinds import LONGEST, other_kind

NESTED = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the weights beside an optimizer and other things."""


def load_weights(model: nn.Module, path: Path) -> None:
    """Fills `model` with the weights in `path`; ModelError in one line where names, shapes or types differ.

    What torch.compile or DataParallel put into names makes no difference, and of a shared tensor one name is enough.
    """
    expected = state_dict_of(model)
    try:
        weights = named_for(model, read_weights(path))
    except ModelError as error:
        raise ModelError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unknown:
        raise ModelError(
            f"{path}: not the weights of this model" + _some(": it lacks", missing) + _some("; it also has", unknown)
        )
    for name, tensor in weights.items():
        if is_lazy(expected[name]):  # takes its shape from the file
            continue
        there, here = (tuple(tensor.shape), tensor.dtype), (tuple(expected[name].shape), expected[name].dtype)
        if there != here:
            raise ModelError(f"{path}: {name} is {there[1]} {there[0]}, the model's is {here[1]} {here[0]}")
    model.load_state_dict(weights)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors by name in a `.safetensors`, `.pt`, `.pth` or `.bin` file; nothing in it is executed."""
    if path.suffix == ".safetensors":
        return load_tensors(path)[0]
    if path.suffix not in (".pt", ".pth", ".bin"):
        raise ModelError(f"{path}: weights come as .safetensors or as torch's .pt, .pth or .bin")
    content = read_bytes(path, SIZE_LIMIT)
    try:
        found = read_torch(content)
    except NotWeightsError:
        raise ModelError(
            f"{path}: damaged, or holds Python objects beside weights, which are not loaded; save it again with "
            "torch.save(model.state_dict(), path)"
        ) from None
    except Exception as error:  # every part of such a file has its own kinds of damage
        what = other_kind(content[:LONGEST], "pickle", ".pt") or _first_line(error)
        raise ModelError(f"{path}: damaged or cut short ({what})") from None
    return _state_dict(found, path)


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for key in NESTED:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
        if content and all(isinstance(k, str) and isinstance(v, Tensor | Opaque) for k, v in content.items()):
            if odd := [name for name, value in content.items() if isinstance(value, Opaque)]:
                raise ModelError(f"{path}: {odd[0]} is no plain tensor of numbers; save it as one")
            return dict(content)
    raise ModelError(f"{path}: holds no state dict, tensors by name; save torch.save(model.state_dict(), path)")


def _some(words: str, names: list[str]) -> str:
    if not names:
        return ""
    return f"{words} {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
