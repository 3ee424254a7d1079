"""Models that somebody's own code makes: `package.module:function`.

Code is only run when the person at the keyboard names it, never because a file says so.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from tombola.errors import ModelError, one_line_by_name
from tombola.models.removed import Removable
from tombola.models.spec import Normalisation, model_versions
from tombola.pruning.modes import evaluation_mode

PATTERN = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
Factory = Callable[[], nn.Module]


class FactorySpec(Removable):
    """What is known of a model of somebody's own: who makes it and what goes in. Written as `spec.json`."""

    factory: str = Field(pattern=f"^{PATTERN}$")
    input_shape: tuple[PositiveInt, ...] | None = Field(min_length=1, description="of an example; null for other tasks")
    classes: int | None = Field(ge=2, description="null where the task is no classification of such examples")
    seed: int = Field(0, ge=0, description="of the random numbers that the function draws")
    dtype: str = Field("float32", pattern="^float32$")
    normalisation: Normalisation = Normalisation()
    versions: dict[str, str] = Field(default_factory=lambda: model_versions())


def is_factory_name(text: str) -> bool:
    """Whether `text` has the form `package.module:function`."""
    return re.fullmatch(PATTERN, text) is not None


def make_with(factory: str | Factory, seed: int = 0, examples: Tensor | None = None) -> nn.Module:
    """The model that a factory makes; a name is looked up as Python would from the current folder.

    Lazy layers get their shapes from `examples`, two of them, and their weights from the same stream.

    What it draws from torch's stream comes from `seed`; the caller's stream stays as it is. Raises ModelError in
    one line when it cannot be imported or called, or gives no module.
    """
    name = factory if isinstance(factory, str) else getattr(factory, "__name__", "the factory")
    function = own_function(factory) if isinstance(factory, str) else factory
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = function()
            if examples is not None and is_lazy(model):
                with evaluation_mode(model), torch.no_grad():
                    model(examples[:2].clone())
    except (Exception, SystemExit) as error:  # a script that ends itself must not end this process
        raise ModelError(f"{name}() failed: {one_line_by_name(error)}") from None
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name}() gave a {type(model).__name__}, not a torch.nn.Module")
    return model


def is_lazy(model: object) -> bool:
    """Whether it has layers whose shapes no input has given yet."""
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    return any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in parameters)


def own_function(name: str) -> Callable[..., Any]:
    """The function that somebody calls `package.module:function`, looked up as Python would from the current folder.

    Raises ModelError in one line where there is none.
    """
    if not is_factory_name(name):
        raise ModelError(f"{name!r} is not of the form package.module:function")
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # installed commands do not look there, `python -m` does
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"cannot import {module_name!r} from here or from what is installed: {one_line_by_name(error)}"
        ) from None
    function = getattr(module, attribute, None)
    if not callable(function):
        known = ", ".join(n for n, v in vars(module).items() if callable(v) and not n.startswith("_"))
        raise ModelError(f"{module_name} has no function {attribute!r}; it has: {known or 'none'}")
    found: Callable[..., Any] = function
    return found
