"""Looking on while a network runs: what its layers were given and what they gave."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tombola.pruning.copies import copy_of
from tombola.pruning.modes import evaluation_mode
from tombola.pruning.outputs import main_output
from tombola.pruning.prunable import prunable_parameters, weights_of_modules
from tombola.pruning.surroundings import surroundings_kept
from tombola.pruning.untouched import left_alone
from tombola.pruning.wrapped import unwrapped

Before = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]
"""(module, arguments, keyword arguments) of a call that begins."""
After = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]
"""(module, arguments, keyword arguments, output) of a call that has ended without an error."""


@contextlib.contextmanager
def observed(modules: Iterable[nn.Module], after: After | None = None, before: Before | None = None) -> Iterator[None]:
    """Within the block `before` and `after` are told of every call of these modules."""
    hooks = []
    for module in modules:
        if before is not None:
            hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
        if after is not None:
            hooks.append(module.register_forward_hook(after, with_kwargs=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def names_of_weights(model: nn.Module) -> dict[tuple[nn.Module, str], str]:
    """(module, attribute) -> name of the weight; a tied weight has one name in all its modules."""
    names = {id(parameter): name for name, parameter in prunable_parameters(model).items()}
    return {(module, attribute): names[id(parameter)] for module, attribute, parameter in weights_of_modules(model)}


def output_weights(model: nn.Module, inputs: Tensor) -> list[str]:
    """The weights of the layers whose outputs are the model's own: its classes, say.

    These are the layers whose very output the model gives, reshaped at most; where it gives none, as after a
    log-softmax or a pool, the layer that ran last, if it has as many outputs. Structures that remove whole outputs
    do well to spare these. `inputs` is a batch. A copy of the model is run.
    """
    original, model = model, copy_of(model)
    names = names_of_weights(model)
    given: list[tuple[str, Tensor]] = []

    def observe(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        if isinstance(output, Tensor) and (module, "weight") in names:
            given.append((names[module, "weight"], output))

    looking_on = observed({module for module, _ in names}, observe)
    with left_alone(original), surroundings_kept(), evaluation_mode(model), looking_on, torch.no_grad():
        result = main_output(unwrapped(model)(inputs.clone()))
    if not isinstance(result, Tensor):
        return []
    own = [name for name, output in given if output.data_ptr() == result.data_ptr()]
    if not own and given and given[-1][1].dim() > 1 and given[-1][1].shape[1:2] == result.shape[1:2]:
        own = [given[-1][0]]
    return own
