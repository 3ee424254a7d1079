"""What goes into a model folder, checked: saving refuses what loading would refuse."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import ModelError, PruningError
from tombola.models.factory import FactorySpec
from tombola.models.spec import ModelSpec, without_memory
from tombola.models.states import plain_state, without_own_wrappers
from tombola.pruning import Masks
from tombola.pruning.copies import copy_of
from tombola.pruning.modes import evaluation_mode
from tombola.pruning.surroundings import surroundings_kept
from tombola.pruning.wrapped import eager, unwrapped

Spec = ModelSpec | FactorySpec


def state_of(spec: Spec, model: nn.Module) -> dict[str, Tensor]:
    """The state dict of `model` for its folder; ModelError where it is not the model of `spec`.

    A zoo's model is compared with its spec tensor by tensor. The function that made another model is not called here:
    of such a model types are compared and, where it takes one example, how many outputs it has.
    """
    if not isinstance(spec, (ModelSpec, FactorySpec)):
        raise ModelError(f"a spec is a ModelSpec or a FactorySpec, not a {type(spec).__name__}")
    if not isinstance(model, nn.Module):
        raise ModelError(f"the model is a torch.nn.Module, not a {type(model).__name__}")
    state = plain_state(model)
    if isinstance(spec, ModelSpec):
        _refuse_other(spec, state)
    else:
        _refuse_other_types(spec, model)
        _refuse_other_outputs(spec, unwrapped(model))
    return state


def masks_of(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """The tensors of `masks` by the names of the model without wrappers; ModelError for masks of another model."""
    if not isinstance(masks, Masks):
        raise ModelError(f"`masks` are Masks, such as prune gives, not a {type(masks).__name__}")
    try:
        tensors = masks.of(unwrapped(model)).to_tensors()
    except PruningError as error:
        raise ModelError(str(error)) from None
    return without_own_wrappers(tensors)


def _refuse_other(spec: ModelSpec, state: dict[str, Tensor]) -> None:
    expected = without_memory(spec).state_dict()
    for name in sorted(expected.keys() | state.keys()):
        here = f"{state[name].dtype} {tuple(state[name].shape)}" if name in state else "missing"
        there = f"{expected[name].dtype} {tuple(expected[name].shape)}" if name in expected else "no such tensor"
        if here != there:
            raise ModelError(f"this is not the {spec.architecture} of its spec: {name} is {here}, the spec's: {there}")


def _refuse_other_types(spec: FactorySpec, model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != getattr(torch, spec.dtype):
            raise ModelError(f"{name} is {parameter.dtype}, the spec says {spec.dtype}: convert it with model.float()")


def _refuse_other_outputs(spec: FactorySpec, model: nn.Module) -> None:
    """Another head than the spec's classes; asked of a copy on the meta device, which computes nothing."""
    if spec.input_shape is None:
        return
    example = torch.empty((1, *spec.input_shape), device="meta")
    try:
        tried = copy_of(model).to("meta")
        with eager(), surroundings_kept(), evaluation_mode(tried), torch.no_grad():
            output: Any = tried(example)
    except Exception:  # a model of other inputs, or one that looks at numbers: its outputs are not known here
        return
    if isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] != spec.classes:
        raise ModelError(f"the model has {output.shape[1]} outputs, the spec says {spec.classes} classes")
