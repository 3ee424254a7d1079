"""Networks as they are before training, made by the zoo or by somebody's own function, and seen to fit the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tombola.errors import ModelError, one_line
from tombola.models.config import Spec
from tombola.models.factory import Factory, FactorySpec, make_with
from tombola.models.spec import build
from tombola.pruning.copies import copy_of
from tombola.pruning.modes import evaluation_mode
from tombola.pruning.outputs import main_output
from tombola.pruning.surroundings import surroundings_kept


def initial_network(spec: Spec, examples: Tensor, factory: str | Factory | None = None) -> nn.Module:
    """The network of `spec` with its initial weights, as the seed in it gives them.

    Of somebody's own function (the one that the spec names, or `factory` in its place) two `examples` are tried: lazy
    layers get their shapes, and a logit for every class has to come out. Raises ModelError in one line where it cannot
    be made, is not in float32, or does not fit.
    """
    if not isinstance(spec, FactorySpec):
        return build(spec)
    model = make_with(factory or spec.factory, spec.seed, examples)
    odd = next((p.dtype for p in model.parameters() if p.is_floating_point() and p.dtype != torch.float32), None)
    if odd is not None:
        raise ModelError(f"{spec.factory}() makes a model of {odd}, but training is in float32: return model.float()")
    check_fits(model, examples, spec.classes, spec.factory)
    return model


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
