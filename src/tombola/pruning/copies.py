"""A copy of a model to run, so that whatever a forward pass writes, it writes there.

Parameters, buffers, caches, counters, hooks, modes: a copy has its own of all of them, shared ones shared as in the
model. Nothing has to be put back afterwards, whatever ends the run. What a model keeps outside of itself (a global, a
class attribute, a list that only a hook's closure knows) is no part of it and not copied.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from tombola.errors import ModelError

Convert = Callable[[Tensor], Tensor]
Memo = dict[int, Any]


def copy_of(model: nn.Module, convert: Convert | None = None) -> nn.Module:
    """A copy of `model` that shares no tensor with it; the model itself is not touched.

    Unlike `copy.deepcopy` it takes models that hold activations of an earlier pass, locks or open files (which it
    shares), and functions that refer to the model (which refer to the copy then). With `convert` every tensor of the
    copy is what that makes of it; `lambda t: torch.empty_like(t, device="meta")` takes no memory. Gradients and the
    hooks of parameters stay behind. Raises ModelError in one line for what cannot be copied all the same.
    """
    with torch.inference_mode(False), torch.no_grad(), _Tensors(convert):
        try:
            return _copied(model, convert, {})
        except Exception:  # an attribute's own business: anything may come
            shared = _uncopyable(model)
        try:
            return _copied(model, convert, shared)
        except Exception as error:
            raise ModelError(
                f"the model ({type(model).__name__}) cannot be copied, and only a copy of it is run: "
                f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            ) from error


@contextlib.contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    """Within the block nothing calls the modules of `model` itself; ModelError naming the one that is called.

    That happens where code reaches them past the copy: by a global, say.
    """
    names = {id(module): name for name, module in model.named_modules()}
    thread = threading.get_ident()  # another one may well use the model meanwhile

    def refuse(module: nn.Module, arguments: Any) -> None:
        if id(module) in names and threading.get_ident() == thread:
            raise ModelError(
                f"{names[id(module)] or type(module).__name__}: the model reaches this layer by a global or by a "
                "function's closure, which a copy of the model cannot follow; reach it through `self`"
            )

    hook = register_module_forward_pre_hook(refuse)
    try:
        with warnings.catch_warnings():
            # Compiled parts call such a hook twice, which torch finds worth a warning.
            warnings.filterwarnings("ignore", r".*there are global hooks on modules")
            yield
    finally:
        hook.remove()


class _Tensors(TorchFunctionMode):
    """Copies also tensors that an earlier pass has computed, which `copy.deepcopy` refuses."""

    def __init__(self, convert: Convert | None) -> None:
        super().__init__()
        self.convert = convert

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            if id(tensor) in memo:
                return memo[id(tensor)]
            if self.convert is not None or not tensor.is_leaf:
                memo[id(tensor)] = made = tensor.detach().clone() if self.convert is None else self.convert(tensor)
                return made
        return func(*args, **(kwargs or {}))


def _copied(model: nn.Module, convert: Convert | None, shared: Memo) -> nn.Module:
    memo = dict(shared)
    if convert is not None:
        for parameter in model.parameters():
            if not isinstance(parameter, nn.parameter.UninitializedParameter):
                memo[id(parameter)] = nn.Parameter(convert(parameter.detach()), parameter.requires_grad)
    closures = _Closures(model, memo)
    copied = copy.deepcopy(model, memo)
    closures.fill()
    return copied


class _Closures:
    """Functions in a model whose closures hold parts of it: `copy.deepcopy` would leave them with the original's."""

    def __init__(self, model: nn.Module, memo: Memo) -> None:
        self.parts = {id(module) for module in model.modules()} | {id(tensor) for tensor in _tensors(model)}
        self.memo = memo
        self.cells: list[tuple[CellType, Any]] = []
        for function in _attributes(model):
            self._rebind(function)

    def _rebind(self, function: Any) -> bool:
        """Puts a function for the copy into the memo; whether one was needed."""
        if not isinstance(function, FunctionType) or not function.__closure__:
            return False
        if id(function) in self.memo:
            return self.memo[id(function)] is not function
        self.memo[id(function)] = function  # a function may hold itself
        held = [_content(cell) for cell in function.__closure__]
        cells = [
            CellType() if self._of_model(content) else cell
            for cell, content in zip(function.__closure__, held, strict=True)
        ]
        if all(new is old for new, old in zip(cells, function.__closure__, strict=True)):
            return False
        self.cells += [
            (new, c) for new, old, c in zip(cells, function.__closure__, held, strict=True) if new is not old
        ]
        rebound = FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, tuple(cells)
        )
        rebound.__kwdefaults__ = function.__kwdefaults__
        rebound.__dict__.update(function.__dict__)
        self.memo[id(function)] = rebound
        return True

    def _of_model(self, content: Any) -> bool:
        owner = content.__self__ if isinstance(content, MethodType) else content
        return id(owner) in self.parts or self._rebind(content)

    def fill(self) -> None:
        """Gives the new closures the copy's parts, now that there are some."""
        for cell, content in self.cells:
            cell.cell_contents = copy.deepcopy(content, self.memo)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty: its variable was deleted
        return None


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _attributes(model: nn.Module) -> Iterator[Any]:
    """What the modules of a model hold beside tensors and modules: values, and those within a list or dictionary."""
    for module in model.modules():
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            yield value
            within: Iterable[Any] = value.values() if isinstance(value, dict) else ()
            yield from list(value) if isinstance(value, (list, tuple)) else list(within)


def _uncopyable(model: nn.Module) -> Memo:
    """What no copy can be made of (locks, files, ...), to be shared with the original."""
    known: Memo = {id(part): part for part in (*model.modules(), *_tensors(model))}
    shared: Memo = {}
    of_containers_last = sorted(_attributes(model), key=lambda value: isinstance(value, (dict, list, tuple)))
    for value in of_containers_last:
        if not _can_be_copied(value, known | shared):
            shared[id(value)] = value
    return shared


def _can_be_copied(value: Any, known: Memo) -> bool:
    try:
        copy.deepcopy(value, dict(known))
    except Exception:
        return False
    return True
