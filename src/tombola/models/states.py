"""State dicts of models: what of them can be stored, and how stored tensors find their places again.

Wrappers (torch.compile, DataParallel) are taken off on the way out and make no difference on the way in; of a shared
tensor one name is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _EXTRA_STATE_KEY_SUFFIX
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from tombola.errors import ModelError, one_line_by_name
from tombola.kernels.tensors import cut_to
from tombola.pruning.wrapped import BOOKKEEPING, OWN_SEGMENTS, matched, unwrapped, without_wrappers

STORABLE = frozenset(
    {
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool),
        *(torch.int64, torch.int32, torch.int16, torch.int8),
        *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
        *(torch.float8_e4m3fn, torch.float8_e5m2),
    }
)
"""Types of numbers that safetensors has and that keep every bit in a file."""


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the model inside its wrappers, by the names that it has without them.

    ModelError naming the first entry that is no plain tensor of numbers, or that a file or the model would not take
    back under its name.
    """
    model = unwrapped(model)
    state = state_dict_of(model)
    for name, value in state.items():
        if name == "__metadata__" or not _encodable(name):
            raise ModelError(f"{name!r} is a name that a safetensors file cannot hold: give it another")
        if (why := _not_storable(value)) is not None:
            raise ModelError(f"{name} {why}")
        if name.endswith("_orig") and f"{name.removesuffix('_orig')}_mask" in state:
            layer, _, attribute = name.removesuffix("_orig").rpartition(".")
            raise ModelError(
                f"{layer}: its {attribute} is under torch's own pruning; make that permanent with "
                f"torch.nn.utils.prune.remove(module, {attribute!r})"
            )
    _refuse_other_names(model, state)
    return without_own_wrappers(state)


def state_dict_of(model: nn.Module) -> Mapping[str, Any]:
    """What `model.state_dict()` gives; ModelError in one line where it fails or gives no entries by name."""
    try:
        state: Any = model.state_dict()
    except Exception as error:  # the model's own code
        raise ModelError(f"the model's state_dict() failed ({one_line_by_name(error)})") from None
    if not isinstance(state, Mapping):
        raise ModelError(f"the model's state_dict() gives a {type(state).__name__}, not tensors by name")
    if odd := [name for name in state if not isinstance(name, str)]:
        raise ModelError(f"the model's state_dict() names a tensor {odd[0]!r:.60}, which is no string")
    return state


def without_own_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` by the names that they have without wrappers; ModelError where two of them would be taken for one."""
    plain = {name: without_wrappers(name, OWN_SEGMENTS) for name in tensors}
    found = matched(plain, plain.values())
    for name in plain:
        if found.get(name) != plain[name]:
            raise ModelError(
                f"{name} cannot be told from another tensor's name without what wrappers put into names, such as "
                "_orig_mod and module: rename that part of the model"
            )
    return {plain[name]: tensor for name, tensor in tensors.items()}


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_other_names(model: nn.Module, state: Iterable[str]) -> None:
    """ModelError where the state dict leaves out tensors of the model, or has others: loading would not find them.

    Layers that write their own entries also read them, so these are taken as they are.
    """
    names, own = set(), []
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        if type(module)._save_to_state_dict is not nn.Module._save_to_state_dict:
            own.append(prefix)
        kept = {n: b for n, b in module._buffers.items() if n not in module._non_persistent_buffers_set}
        tensors = (*module._parameters.items(), *kept.items())
        names |= {without_wrappers(prefix + name, OWN_SEGMENTS) for name, tensor in tensors if tensor is not None}
    here = {without_wrappers(name, OWN_SEGMENTS) for name in state}
    for name in sorted(names ^ here):
        if name.rpartition(".")[2] != _EXTRA_STATE_KEY_SUFFIX and not name.startswith(tuple(own)):
            what = "leaves out" if name in names else "adds"
            raise ModelError(
                f"the model's state_dict() {what} {name}, as a hook or a method of its own may do: such a model cannot "
                "be loaded again; take the hook off to save it"
            )


def _not_storable(value: Any) -> str | None:
    """Why an entry of a state dict cannot be stored; None where it can."""
    if not isinstance(value, Tensor):
        return f"is extra state, a {type(value).__name__}: only tensors are stored; make it a buffer"
    if is_lazy(value):
        return "has no shape yet: run the model once on an example"
    if is_traceable_wrapper_subclass(value):
        return f"is a {type(value).__name__}, which holds other tensors: make it a plain one"
    if value.is_meta:
        return "is on the meta device and has no values: give the model storage first"
    if value.is_quantized:
        return "is quantised: only plain numbers are stored; use its int_repr(), or dequantize() it"
    if value.is_nested:
        return "is a nested tensor: store its parts as tensors of their own"
    if value.layout != torch.strided:
        return f"is a {str(value.layout).removeprefix('torch.')} tensor: make it dense with to_dense()"
    if value.dtype not in STORABLE:
        return f"is {value.dtype}, which a safetensors file cannot hold"
    return _not_readable(value)


def _not_readable(tensor: Tensor) -> str | None:
    """Why the memory of a strided tensor cannot be read, or not be written when it is loaded again."""
    if (held := cut_to(tensor)) is not None:
        return f"has lost its values: its memory was freed or cut to {held} bytes; fill it again"
    if tensor.numel() and any(size > 1 and not step for size, step in zip(tensor.shape, tensor.stride(), strict=True)):
        return "is an expanded view, whose values share memory and cannot be loaded one by one: clone() it"
    if tensor.is_inference():
        return "was made under torch.inference_mode() and cannot be loaded into: make the model outside of it"
    return None


def named_for(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights` by the names that `model` has for them; what it has no place for keeps its own.

    ModelError where two names of one shared tensor say different things.
    """
    expected = state_dict_of(model)
    # AveragedModel counts its updates beside the model that it holds: those of the file go, those of the model stay.
    weights = {name: tensor for name, tensor in weights.items() if name in expected or name not in BOOKKEEPING}
    weights |= {name: expected[name] for name in BOOKKEEPING if name in expected and name not in weights}
    pairs = matched(expected, weights)
    found = {name: weights[other] for name, other in pairs.items()}
    placed = set(pairs.values())
    unknown = {name: tensor for name, tensor in weights.items() if name not in placed}
    return found | _of_shared(expected, found, model) | unknown


def _of_shared(expected: Iterable[str], found: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """What the file has under another name of the same tensor. ModelError where two names say different things."""
    names: dict[int, list[str]] = {}
    for every in (model.named_parameters, model.named_buffers):
        for name, tensor in every(remove_duplicate=False):
            names.setdefault(id(tensor), []).append(name)
    wanted = set(expected)
    shared: dict[str, Tensor] = {}
    for same in names.values():
        given = [name for name in same if name in found]
        if odd := [name for name in given[1:] if not torch.equal(found[name], found[given[0]])]:
            raise ModelError(f"{given[0]} and {odd[0]} are one tensor in this model, here they differ")
        shared |= {name: found[given[0]] for name in same if given and name in wanted and name not in found}
    return shared
