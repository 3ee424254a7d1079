"""Masks that hold in anybody's training loop: one line around it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import PruningError
from tombola.pruning.masks import Masks


@contextlib.contextmanager
def held(masks: Masks, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Masks]:
    """Within the block the removed weights of `model` are exactly 0 after *every* step of `optimizer`.

    They are set to 0 at the beginning, too. Momentum and weight decay move removed weights whatever their
    gradient is; that is undone before the step returns. Gradients are those of the pruned network, 0 at removed
    weights: optimizers that look at more than one weight at a time, or evaluate a closure several times within a
    step as LBFGS does, would go astray with others. Masks that are updated inside the block hold from the next
    step on. Raises PruningError for masks of another model, for an optimizer that does not train the model's
    weights, and at the end of the block if a removed weight is not 0: something else changed it.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise PruningError(f"held needs one torch optimizer, not {type(optimizer).__name__}; nest `with` for several")
    parameters = masks.parameters_of(model)
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(parameter) in trained for parameter in parameters.values()):
        raise PruningError("the optimizer does not train this model: make it from model.parameters()")

    in_force: dict[str, Tensor] = {}

    def reapply(*_: object) -> None:
        for name, mask in masks.items():
            in_force[name] = mask.keep
            mask.apply_(parameters[name])

    reapply()
    hooks: list[Any] = [
        parameter.register_hook(lambda gradient, name=name: masks[name].apply(gradient))
        for name, parameter in parameters.items()
        if parameter.requires_grad
    ]
    hooks.append(optimizer.register_step_post_hook(reapply))
    try:
        yield masks
        if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters.values()):
            raise PruningError("the weights are no longer finite numbers: training diverged, lower the learning rate")
        if odd := sum(
            int((parameters[n].detach()[~keep.to(parameters[n].device)] != 0).sum()) for n, keep in in_force.items()
        ):
            raise PruningError(
                f"{odd} removed weight(s) are not 0: they were changed outside of the optimizer's steps, "
                "for example by load_state_dict"
            )
        reapply()  # masks updated after the last step
    finally:
        for hook in hooks:
            hook.remove()
