"""A copy of a model to run, so that whatever a forward pass writes, it writes there.

Parameters, buffers, caches, counters, hooks, modes: a copy has its own of all of them, shared ones shared as in the
model. Nothing has to be put back afterwards, whatever ends the run. What a model keeps outside of itself (a global, a
class attribute, a list that only a hook's closure knows) is no part of it and not copied; `untouched.py` sees to that.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tombola.errors import ModelError, one_line_by_name

Convert = Callable[[Tensor], Tensor]
Memo = dict[int, Any]
DEPTH = 4
"""How deep in lists of lists a part of the model is looked for."""


def copy_of(
    model: nn.Module, convert: Convert | None = None, instead: Mapping[int, nn.Module] | None = None
) -> nn.Module:
    """A copy of `model` that shares no tensor with it; the model itself is not touched.

    Unlike `copy.deepcopy` it takes models that hold activations of an earlier pass, locks or open files (which it
    shares), and functions that refer to the model (which refer to the copy then). With `convert` every tensor of the
    copy is what that makes of it; `lambda t: torch.empty_like(t, device="meta")` takes no memory. `instead`: what
    the copy has in place of modules, by the id of these, which are not copied. Gradients and the hooks of parameters
    stay behind. Raises ModelError in one line for what cannot be copied all the same.
    """
    with torch.inference_mode(False), torch.no_grad(), _Tensors(convert):
        try:
            return _copied(model, convert, dict(instead or {}))
        except Exception:  # an attribute's own business: anything may come
            shared = _uncopyable(model)
        try:
            return _copied(model, convert, shared | dict(instead or {}))
        except Exception as error:
            raise ModelError(
                f"the model ({type(model).__name__}) cannot be copied, and only a copy of it is run: "
                f"{one_line_by_name(error)}"
            ) from error


def holder_without_copy(model: nn.Module, part: Any) -> str | None:
    """The attribute of `model` (`self.layer.name`) that leads to `part` and that every copy shares, as none can be made
    of it (it holds a lock, say)."""
    with torch.inference_mode(False), torch.no_grad(), _Tensors(None):
        shared = _uncopyable(model)
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if id(value) in shared and _leads_to(value, part):
                return ".".join(word for word in ("self", name, attribute) if word)
    return None


def _leads_to(value: Any, part: Any, most: int = 100_000) -> bool:
    seen: set[int] = set()
    ahead = [value]
    while ahead and len(seen) < most:
        found = ahead.pop()
        if found is part:
            return True
        if id(found) in seen or isinstance(found, (type, ModuleType)):
            continue
        seen.add(id(found))
        # Not a function's globals: by them everything leads to everything.
        ahead += list(_held_by(found)) if isinstance(found, FunctionType) else gc.get_referents(found)
    return False


def _held_by(function: FunctionType) -> Iterator[Any]:
    yield from map(_content, function.__closure__ or ())
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()


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
    for value in _attributes(model):
        if isinstance(value, torch.Generator):  # which `copy.deepcopy` refuses
            memo[id(value)] = torch.Generator(value.device).set_state(value.get_state())
    closures = _Closures(model, memo)
    copied = copy.deepcopy(model, memo)
    closures.fill()
    return copied


class _Closures:
    """Functions in a model that hold parts of it, in closures or defaults: `copy.deepcopy` leaves them the original's.

    Parts within lists, tuples and dictionaries that a function holds are found, too.
    """

    def __init__(self, model: nn.Module, memo: Memo) -> None:
        self.parts = {id(module) for module in model.modules()} | {id(tensor) for tensor in _tensors(model)}
        self.memo = memo
        self.cells: list[tuple[CellType, Any]] = []
        self.rebound: list[FunctionType] = []
        for function in _attributes(model):
            self._rebind(function)

    def _rebind(self, function: Any) -> bool:
        """Puts a function for the copy into the memo; whether one was needed."""
        if not isinstance(function, FunctionType):
            return False
        if id(function) in self.memo:
            return self.memo[id(function)] is not function
        self.memo[id(function)] = function  # a function may hold itself
        old = function.__closure__ or ()
        new = [CellType() if self._of_model(_content(cell)) else cell for cell in old]
        of_defaults = [self._of_model(function.__defaults__), self._of_model(function.__kwdefaults__)]
        if all(ours is theirs for ours, theirs in zip(new, old, strict=True)) and not any(of_defaults):
            return False
        self.cells += [(ours, _content(theirs)) for ours, theirs in zip(new, old, strict=True) if ours is not theirs]
        closure = tuple(new) if function.__closure__ is not None else None
        rebound = FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, closure
        )
        rebound.__kwdefaults__ = function.__kwdefaults__
        rebound.__dict__.update(function.__dict__)
        self.memo[id(function)] = rebound
        self.rebound.append(rebound)
        return True

    def _of_model(self, content: Any, depth: int = 0) -> bool:
        if type(content) in (list, tuple, dict):
            within = content.values() if isinstance(content, dict) else content
            # All of them: each function among them needs its own.
            found = [self._of_model(part, depth + 1) for part in within] if depth < DEPTH else []
            return any(found)
        owner = content.__self__ if isinstance(content, MethodType) else content
        return id(owner) in self.parts or self._rebind(content)

    def fill(self) -> None:
        """Gives the new functions the copy's parts, now that there are some."""
        for cell, content in self.cells:
            cell.cell_contents = self._followed(content)
        for function in self.rebound:
            function.__defaults__ = self._followed(function.__defaults__)
            function.__kwdefaults__ = self._followed(function.__kwdefaults__)

    def _followed(self, content: Any) -> Any:
        """What the copy has in place of `content`; what is no part of the model stays what it is."""
        if id(content) in self.memo or not self._of_model(content):
            return self.memo.get(id(content), content)
        if isinstance(content, dict):
            made: Any = {}
            self.memo[id(content)] = made  # it may hold itself
            made.update((key, self._followed(part)) for key, part in content.items())
            return made
        if isinstance(content, list):
            self.memo[id(content)] = made = []
            made.extend(self._followed(part) for part in content)
            return made
        if isinstance(content, tuple):
            return tuple(self._followed(part) for part in content)
        return copy.deepcopy(content, self.memo)


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
