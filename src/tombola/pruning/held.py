"""Masks that hold in anybody's training loop: one line around it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from tombola.errors import PruningError
from tombola.pruning.masks import Masks


@contextlib.contextmanager
def held(masks: Masks, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Masks]:
    """Within the block the removed weights of `model` are exactly 0 after *every* step of `optimizer`.

    They are set to 0 at the beginning, too. Momentum and weight decay move removed weights whatever their
    gradient is; that is undone before the step returns. Masks that are updated inside the block hold from the
    next step on. Raises PruningError for masks of another model, for an optimizer that does not train the
    model's weights, and at the end of the block if a removed weight is not 0: something else changed it.
    """
    parameters = masks.parameters_of(model)
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(parameter) in trained for parameter in parameters.values()):
        raise PruningError("the optimizer does not train this model: make it from model.parameters()")

    in_force: dict[str, Tensor] = {}

    def reapply(*_: object) -> None:
        in_force.update({name: mask.keep for name, mask in masks.items()})
        _zero_removed(in_force, parameters)

    reapply()
    hook = optimizer.register_step_post_hook(reapply)
    try:
        yield masks
        if odd := sum(int((parameters[n].detach()[~keep] != 0).sum()) for n, keep in in_force.items()):
            raise PruningError(
                f"{odd} removed weight(s) are not 0: they were changed outside of the optimizer's steps, "
                "for example by load_state_dict"
            )
        reapply()  # masks updated after the last step
    finally:
        hook.remove()


@torch.no_grad()
def _zero_removed(keeps: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    weights: list[Tensor] = [parameters[name] for name in keeps]
    torch._foreach_mul_(weights, list(keeps.values()))
