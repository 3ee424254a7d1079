"""What stays as it was while a copy of a model runs: the model itself, by whatever path code may reach it.

A copy has its own of everything in the model. Code that reaches the model from outside (a global, a weak reference, an
object that cannot be copied, a loss) still means the original: that is refused, and what it changed is put back.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from tombola.errors import ModelError, PruningError
from tombola.pruning.copies import holder_without_copy


@contextlib.contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    """For a block that runs a copy of `model`: afterwards the model itself is as it was, however the block ends.

    Raises ModelError naming a layer of the model that is called within, PruningError naming a parameter, buffer or
    gradient of it that was changed. Takes the memory of one copy of these tensors. Nothing else may train the model
    meanwhile: it would be put back, too.
    """
    before = _State(model)
    try:
        with _calls_refused(model):
            yield
    except BaseException as error:
        changed = before.put_back()
        if changed and isinstance(error, Exception):
            raise _refusal(model, *changed) from error
        raise
    if changed := before.put_back():
        raise _refusal(model, *changed)


class _State:
    """A model's tensors, gradients and modes: which ones they are and what is in them."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = [
            (name, module, dict(module._parameters), dict(module._buffers), module.training)
            for name, module in model.named_modules()
        ]
        named = [*model.named_parameters(), *model.named_buffers()]
        self.tensors = [(name, tensor, tensor.requires_grad, tensor.grad) for name, tensor in named if tensor.is_leaf]
        contents = [
            *named,
            *((f"the gradient of {name}", grad) for name, _, _, grad in self.tensors if grad is not None),
        ]
        self.contents = [(name, tensor, *kept) for name, tensor in contents if (kept := _kept(tensor)) is not None]

    def put_back(self) -> tuple[str, Any] | None:
        """Makes the model what it was; the first part that was not, by name and itself."""
        changed: list[tuple[str, Any]] = []
        with torch.no_grad():
            for name, tensor, held, copied in self.contents:
                if not _same(tensor, held, copied):
                    changed.append((name, tensor))
                    _restore(tensor, held, copied)
            for name, tensor, asks, gradient in self.tensors:
                if not tensor.is_leaf:  # written in place by something that asks for gradients
                    changed.append((name, tensor))
                    tensor.detach_()
                if tensor.grad is not gradient:
                    changed.append((f"the gradient of {name}", tensor))
                    tensor.grad = gradient
                if tensor.requires_grad != asks:
                    changed.append((name, tensor))
                    tensor.requires_grad_(asks)
        for name, module, parameters, buffers, training in self.modules:
            if module.training != training:
                changed.append((name or type(module).__name__, module))
                module.training = training
            for current, former in ((module._parameters, parameters), (module._buffers, buffers)):
                if differing := _differing(current, former):
                    changed.append((".".join(filter(None, (name, differing))), module))
                    current.clear()
                    current.update(former)
        return changed[0] if changed else None


def _kept(tensor: Tensor) -> tuple[Tensor, Tensor] | None:
    """The tensor's own memory and a copy of it; None for one without bits to see (lazy, sparse, ...)."""
    if isinstance(tensor, (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)) or tensor.is_meta:
        return None
    try:
        held = tensor.detach()
        copied = held.clone()
        held.data_ptr()
        return (held, copied) if torch.equal(_bits(held), _bits(copied)) else None
    except (RuntimeError, NotImplementedError, TypeError):
        return None


def _bits(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def _same(tensor: Tensor, held: Tensor, copied: Tensor) -> bool:
    here = tensor.data_ptr() == held.data_ptr() and tensor.shape == held.shape and tensor.dtype == held.dtype
    return here and tensor.stride() == held.stride() and torch.equal(_bits(held), _bits(copied))


def _restore(tensor: Tensor, held: Tensor, copied: Tensor) -> None:
    with torch.inference_mode(held.is_inference()):
        held.copy_(copied)
        if not held.is_inference():
            tensor.data = held  # somebody may have set it


def _differing(current: dict[str, Any], former: dict[str, Any]) -> str | None:
    """The first name that stands for something else."""
    names = (*former, *(name for name in current if name not in former))
    return next((name for name in names if current.get(name) is not former.get(name)), None)


@contextlib.contextmanager
def _calls_refused(model: nn.Module) -> Iterator[None]:
    names = {id(module): name for name, module in model.named_modules()}
    thread = threading.get_ident()  # another one may well use the model meanwhile

    def refuse(module: nn.Module, arguments: Any) -> None:
        if id(module) in names and threading.get_ident() == thread:
            raise ModelError(f"{names[id(module)] or type(module).__name__}: {_why(model, module, 'layer')}")

    hook = register_module_forward_pre_hook(refuse)
    try:
        with warnings.catch_warnings():
            # Compiled parts call such a hook twice, which torch finds worth a warning.
            warnings.filterwarnings("ignore", r".*there are global hooks on modules")
            yield
    finally:
        hook.remove()


def _refusal(model: nn.Module, name: str, part: Any) -> PruningError:
    return PruningError(
        f"{name} was changed while a copy of the model ran, and was put back: {_why(model, part, 'part')}"
    )


def _why(model: nn.Module, part: Any, what: str) -> str:
    if holder := holder_without_copy(model, part):
        return (
            f"the model reaches this {what} by `{holder}`, which cannot be copied (it holds a lock or an open file, "
            f"say), so a copy of the model shares it; reach the {what} through `self`"
        )
    return (
        f"your code reaches this {what} outside the model, by a global, a weak reference, a function's closure or the "
        f"loss, which a copy of the model cannot follow; reach it through `self`"
    )
