"""Masks that hold in anybody's training loop: one line around it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.errors import PruningError
from tombola.pruning.mask import Mask
from tombola.pruning.naming import parameters_of
from tombola.pruning.prunable import listed
from tombola.pruning.wrapped import matched

M = TypeVar("M", bound=Mapping[str, Mask])


@contextlib.contextmanager
def held(masks: M, model: nn.Module, optimizer: Optimizer | Sequence[Optimizer]) -> Iterator[M]:
    """Within the block the removed weights of `model` are exactly 0 after *every* step of `optimizer`.

    They are set to 0 at the beginning, too. Momentum and weight decay move removed weights whatever their
    gradient is; that is undone before the step returns. Gradients are those of the pruned network, 0 at removed
    weights: optimizers that look at more than one weight at a time, or evaluate a closure several times within a
    step as LBFGS does, would go astray with others. Masks that are updated inside the block hold from the next
    step on. Several optimizers that share the model's parameters come as a list, or each in a block of its own.

    Raises PruningError for masks of another model and for an optimizer that trains none of the model's parameters. A
    weight that is no longer the Parameter that it was (assigned anew, in a new layer, under a parametrisation) cannot
    be held: this is an error at the next step or at the end of the block, and so is a removed weight that is not 0 at
    the end, which something else than the optimizer's steps changed.
    """
    optimizers = _optimizers(optimizer)
    holding = _Holding(masks, model)
    trainable = {id(parameter) for parameter in model.parameters()}
    for one in optimizers:
        if not any(id(parameter) in trainable for group in one.param_groups for parameter in group["params"]):
            raise PruningError("the optimizer does not train this model: make it from model.parameters()")
    holding.reapply()
    hooks: list[Any] = []
    try:
        holding.watch_gradients()
        for one in optimizers:
            hooks.append(one.register_step_pre_hook(lambda *_: holding.prepare()))
            hooks.append(one.register_step_post_hook(lambda *_: holding.reapply()))
        yield masks
        holding.check()
        holding.reapply()  # masks updated after the last step
    finally:
        for hook in (*hooks, *holding.hooks.values()):
            hook.remove()


def _optimizers(given: Any) -> list[Optimizer]:
    several = list(given) if isinstance(given, (list, tuple)) else [given]
    if not several:
        raise PruningError("held needs an optimizer, the list is empty")
    for one in several:
        if not isinstance(one, Optimizer):
            raise PruningError(f"held needs a torch optimizer or a list of them, not {type(one).__name__}")
    return several


class _Holding:
    """The parameters that are held, by the names that they have in the masks and in the model."""

    def __init__(self, masks: Mapping[str, Mask], model: nn.Module) -> None:
        self.masks, self.model = masks, model
        self.parameters = parameters_of(masks, model)
        self.in_force: dict[str, Tensor] = {}
        self.hooks: dict[str, Any] = {}
        own = {id(parameter): name for name, parameter in self.parameters.items()}
        # Every name: a shared weight may be replaced in one of its layers alone.
        every = model.named_parameters(remove_duplicate=False)
        self.names = {name: own[id(parameter)] for name, parameter in every if id(parameter) in own}

    def watch_gradients(self) -> None:
        """Makes gradients those of the pruned network as soon as they come; also of weights unfrozen meanwhile."""
        for name, parameter in self.parameters.items():
            if parameter.requires_grad and name not in self.hooks:
                self.hooks[name] = parameter.register_hook(lambda gradient, name=name: self.masks[name].apply(gradient))

    def prepare(self) -> None:
        """Before a step: no gradient of before the block, or that was set by hand, reaches the optimizer."""
        self.refuse_replaced()
        self.watch_gradients()
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                self.masks[name].apply_(parameter.grad)

    def reapply(self) -> None:
        self.refuse_replaced()
        for name, parameter in self.parameters.items():
            mask = self.masks[name]
            self.in_force[name] = mask.keep
            if parameter.shape != mask.shape:
                raise PruningError(
                    f"{name}: its shape is now {tuple(parameter.shape)}, that of its mask {tuple(mask.shape)}"
                )
            mask.apply_(parameter)

    def refuse_replaced(self) -> None:
        """PruningError naming a weight that is no longer the Parameter that it was when the block began."""
        for name, own in self.names.items():
            if _found(self.model, name) is not self.parameters[own]:
                break
        else:
            return
        # A layer may have been compiled inside the block: another name, the same weight.
        now = dict(self.model.named_parameters(remove_duplicate=False))
        pairs = matched(self.names, now)
        for name, own in self.names.items():
            if (what := self._replaced(own, pairs.get(name), now)) is not None:
                raise PruningError(
                    f"{name} {what} since the block began (assigned anew, in a new layer, or under a parametrisation), "
                    "so its removed weights are not held: change the model first, then begin the block with an "
                    "optimizer of its parameters"
                )
        self.names = {pairs[name]: own for name, own in self.names.items()}

    def _replaced(self, own: str, name: str | None, now: dict[str, nn.Parameter]) -> str | None:
        """What became of a weight, which is `name` among the parameters `now`; None where it is what it was."""
        if name is None:
            return "is no Parameter of the model"
        if now[name] is not self.parameters[own]:
            return "is another Parameter"
        # Wrappers that leave themselves out of names, as activation checkpointing does, lead to nothing here.
        found = _found(self.model, name)
        if found is not None and found is not self.parameters[own]:
            return "is hidden by an attribute of the same name"
        return None

    def check(self) -> None:
        """At the end: all is as it was held, and finite."""
        self.refuse_replaced()
        if meta := [name for name, parameter in self.parameters.items() if parameter.is_meta]:
            raise PruningError(f"{meta[0]} is on the meta device since and has no values any more")
        if odd := [name for name, parameter in self.parameters.items() if not bool(torch.isfinite(parameter).all())]:
            raise PruningError(
                f"the weights are not finite numbers (in {listed(odd)}): training diverged, then lower the learning "
                "rate, or something else than the optimizer wrote NaN or infinity there"
            )
        changed = {name: count for name, keep in self.in_force.items() if (count := self._nonzeros(name, keep))}
        if changed:
            raise PruningError(
                f"removed weights that are not 0: {sum(changed.values())} (of {listed(list(changed))}): they were "
                "changed outside of the optimizer's steps, for example by load_state_dict"
            )

    def _nonzeros(self, name: str, keep: Tensor) -> int:
        parameter = self.parameters[name].detach()
        if parameter.shape != keep.shape:
            return parameter.numel()
        return int((parameter[~keep.to(parameter.device)] != 0).sum())


def _found(model: nn.Module, name: str) -> object:
    """What a layer finds under that name now, without running anybody's `__getattr__`; None where there is nothing.

    What stands in an instance's `__dict__` comes before parameters and children of the same name.
    """
    *path, attribute = name.split(".")
    module: object = model
    for part in path:
        if not isinstance(module, nn.Module):
            return None
        module = module.__dict__.get(part, module._modules.get(part))
    if not isinstance(module, nn.Module):
        return None
    return module.__dict__.get(attribute, module._parameters.get(attribute))
