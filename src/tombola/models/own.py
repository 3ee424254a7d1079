"""Networks as they are before training, made by the zoo or by somebody's own function, and seen to fit the data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tombola.errors import ModelError, one_line
from tombola.models.config import Spec
from tombola.models.factory import Factory, FactorySpec, is_lazy, make_with
from tombola.models.spec import build
from tombola.pruning.copies import copy_of
from tombola.pruning.modes import evaluation_mode
from tombola.pruning.outputs import main_output
from tombola.pruning.surroundings import surroundings_kept

Try = Callable[[nn.Module], object]
"""Runs a model as its task does, and raises an error where it does not fit."""


def initial_network(spec: Spec, examples: Tensor | Try, factory: str | Factory | None = None) -> nn.Module:
    """The network of `spec` with its initial weights, as the seed in it gives them.

    Of somebody's own function (the one that the spec names, or `factory` in its place) two `examples` are tried: lazy
    layers get their shapes, and a logit for every class has to come out. A task whose examples are no tensors is tried
    by a function. Raises ModelError in one line where it cannot be made, is not in float32, or does not fit.
    """
    if not isinstance(spec, FactorySpec):
        return build(spec)
    model = make_with(factory or spec.factory, spec.seed, examples if isinstance(examples, Tensor) else None)
    odd = next((p.dtype for p in model.parameters() if p.is_floating_point() and p.dtype != torch.float32), None)
    if odd is not None:
        raise ModelError(f"{spec.factory}() makes a model of {odd}, but training is in float32: return model.float()")
    if isinstance(examples, Tensor):
        assert spec.classes is not None, "whose examples are tensors has classes"
        check_fits(model, examples, spec.classes, spec.factory)
    elif is_lazy(model):
        raise ModelError(
            f"{spec.factory}() makes lazy layers, whose shapes this task cannot give: write their sizes out"
        )
    else:
        _check_tried(model, examples, spec.factory)
    return model


def _check_tried(model: nn.Module, attempt: Try, name: str) -> None:
    """ModelError unless the task takes the model; the model stays as it is."""
    try:
        tried = copy_of(model)
        with surroundings_kept(), evaluation_mode(tried), torch.no_grad():
            attempt(tried)
    except Exception as error:
        raise ModelError(f"{name}: does not fit the task: {one_line(error, 200)}") from None


def check_fits(model: nn.Module, examples: Tensor, classes: int, name: str) -> None:
    """ModelError unless two examples go through and a logit for every class comes out; the model stays as it is."""
    try:
        tried = copy_of(model)
        with surroundings_kept(), evaluation_mode(tried), torch.no_grad():
            output = main_output(tried(examples[:2].clone()))
    except Exception as error:  # somebody's own forward pass may raise anything
        raise ModelError(
            f"{name}: does not take inputs of shape {tuple(examples.shape[1:])}: {one_line(error, 200)}"
        ) from None
    if not isinstance(output, Tensor) or output.dim() != 2 or output.shape[1] < classes:
        shown = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ModelError(f"{name}: gives {shown} for two examples, not logits of {classes} classes")
