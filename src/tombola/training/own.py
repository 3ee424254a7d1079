"""Somebody's own functions in a training: the optimizer, and the schedule of the learning rate.

A recipe names them as `package.module:function`; `fit` takes the functions themselves, too. Their code is theirs; what
is here sees to it that a training with them is held by its masks and continued to the bit like any other, and refuses,
by name, what cannot be.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import TrainingError, one_line_by_name
from tombola.models.factory import is_factory_name, own_function
from tombola.runs.configs import Config, parts_of
from tombola.training.classification import Classification, name_of
from tombola.training.code import code_sha256
from tombola.training.device import CPU
from tombola.training.flat import FlatParameters
from tombola.training.recipe import KNOWN, Recipe, Schedule, factor_of
from tombola.training.seen import seen_beside, seen_in_groups, unseen
from tombola.training.step import Step
from tombola.training.task import Loss, Task

MakeOptimizer = Callable[[list[tuple[str, nn.Parameter]], float], torch.optim.Optimizer]
"""(named parameters, learning rate) -> their optimizer, whose groups begin at rates that a schedule multiplies."""

NUMBERS = {bool: torch.bool, int: torch.int64, float: torch.float64}
"""Python's numbers in an optimizer's state, and the tensors that they are saved as."""
BETWEEN, GROUP = "|", "group "
"""Of names in a checkpoint: `<parameter>|<key>|<kind>`, or `group <number>|<key>|<kind>`."""


@dataclass(frozen=True)
class OwnFunctions:
    """The functions of somebody's own that a training uses; None where it uses Tombola's."""

    optimizer: MakeOptimizer | None
    schedule: Schedule | None

    @classmethod
    def of(cls, recipe: Recipe, optimizer: MakeOptimizer | None, schedule: Schedule | None) -> OwnFunctions:
        """Those that are given, else those that the recipe names. TrainingError for settings that they leave unused."""
        if optimizer is not None and (recipe.momentum or recipe.weight_decay):
            raise TrainingError("momentum and weight_decay belong to the recipe's optimizers: give them to your own")
        if schedule is not None and (recipe.schedule != "constant" or recipe.warmup != Step()):
            raise TrainingError("a schedule of your own takes the place of the recipe's: leave schedule and warmup out")
        if optimizer is None and is_factory_name(recipe.optimizer):
            optimizer = own_function(recipe.optimizer)
        if schedule is None and is_factory_name(recipe.schedule):
            schedule = own_function(recipe.schedule)
        return cls(optimizer, schedule)

    def rate(self, recipe: Recipe, iteration: int, per_epoch: int) -> float:
        """The learning rate of an iteration."""
        if self.schedule is None:
            return recipe.rate_at(iteration, per_epoch)
        return recipe.learning_rate * factor_of(self.schedule, iteration, recipe.length.iterations(per_epoch))

    def check_named(self, recipe: Recipe, task: Task) -> None:
        """TrainingError for functions that a checkpoint, which knows names and modules, cannot tell from others."""
        loss = task.criterion_loss if isinstance(task, Classification) else None
        for role, function in (("optimizer", self.optimizer), ("schedule", self.schedule), ("loss", loss)):
            name = getattr(recipe, role)
            if is_factory_name(name or "") and own_function(name) is function:
                continue  # whatever it is, it has that name
            if function is None or _is_of_module(function):
                continue
            raise TrainingError(
                f"the {role} {name_of(function)} is a lambda, a closure, a partial or an object, and a checkpoint "
                "knows functions by their names and the code of their modules: give it a function of a module (a "
                "`def` that is in no other), or no checkpoint"
            )

    @property
    def identity(self) -> list[str]:
        """What a checkpoint knows them by: names and digests of code; nothing of Tombola's."""
        own = [function for function in (self.optimizer, self.schedule) if function is not None]
        return [f"{name_of(function)} {code_sha256(function)}" for function in own]


def _is_of_module(function: Callable[..., Any]) -> bool:
    """Whether its name leads to it, and so says what it does."""
    module, _, path = name_of(function).partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found is function


def own_functions(config: Config) -> list[str]:
    """The functions of somebody's own that the recipes in a config name."""
    names = [getattr(part, key) for part in parts_of(config) if isinstance(part, Recipe) for key in KNOWN]
    return list(dict.fromkeys(name for name in names if name is not None and is_factory_name(name)))


def loss_of(recipe: Recipe | None) -> Loss:
    """What classes are learned by, and what criteria that look at data score by."""
    return functional.cross_entropy if recipe is None or recipe.loss is None else own_function(recipe.loss)


def with_own_loss(task: Task, recipe: Recipe) -> Task:
    """The task with the loss that the recipe names, if any. TrainingError for a task that has one of its own."""
    if recipe.loss is None:
        return task
    if (changed := task.by_loss(loss_of(recipe))) is None:
        raise TrainingError(
            f"the recipe's loss {recipe.loss} is for classification by cross-entropy, and this task has its own: leave "
            "it out"
        )
    return changed


class OwnOptimizer:
    """An optimizer of somebody's own on the parameters of a model, which stay views of the flat vector.

    Its groups keep the ratio of their learning rates; the schedule multiplies them all. What it has to go on with is in
    its state by parameter and in its groups: tensors, and Python's numbers beside them.
    """

    def __init__(self, make: MakeOptimizer, flat: FlatParameters, recipe: Recipe) -> None:
        self.name, self.learning_rate = name_of(make), recipe.learning_rate
        self.parameters = flat.parameters
        try:
            self.optimizer = make(list(flat.parameters.items()), recipe.learning_rate)
        except Exception as error:
            raise self._refused(f"cannot be made: {one_line_by_name(error)}") from error
        if not isinstance(self.optimizer, torch.optim.Optimizer):
            raise TrainingError(f"{self.name} gives a {type(self.optimizer).__name__}, not a torch.optim.Optimizer")
        self.numbers = {id(parameter): number for number, parameter in enumerate(flat.parameters.values())}
        if any(id(p) not in self.numbers for group in self.optimizer.param_groups for p in group["params"]):
            raise self._refused("trains parameters that were not given to it")
        self.places = self._places()
        self.rates = [group.get("lr") for group in self.optimizer.param_groups]
        self.groups = seen_in_groups(self.optimizer, self.numbers)
        self.beside = seen_beside(self.optimizer, self.numbers)

    def step(self, rate: float) -> None:
        """One update; the groups' first rates are those of the recipe's whole learning rate."""
        for group, first in zip(self.optimizer.param_groups, self.rates, strict=True):
            if first is not None:
                group["lr"] = first * (rate / self.learning_rate)
        try:
            self.optimizer.step()
        except Exception as error:
            raise self._refused(f"fails: {one_line_by_name(error)}") from error
        if (places := self._places()) != self.places:
            moved = next(n for n, now, was in zip(self.parameters, places, self.places, strict=True) if now != was)
            raise self._refused(
                f"puts another tensor in the place of {moved} or its gradient; it has to change them in place, or "
                "masks would not hold"
            )

    def _places(self) -> list[tuple[int, int]]:
        """Where values and gradients lie: parts of the flat vectors, as long as nobody replaces them."""
        return [(p.data_ptr(), 0 if p.grad is None else p.grad.data_ptr()) for p in self.parameters.values()]

    @property
    def state(self) -> dict[str, Tensor]:
        """All that a checkpoint must keep. TrainingError, by name, for what none can hold."""
        self._check_beside()
        found: dict[str, Tensor] = {}
        for parameter, kept in self.optimizer.state.items():
            number = self.numbers.get(id(parameter))
            if number is None:
                raise self._refused("keeps state of something that is no parameter of the model")
            for key, value in kept.items():
                found |= self._stored(f"{number}{BETWEEN}{key}", value, parameter.device)
        for number, (now, first) in enumerate(
            zip(seen_in_groups(self.optimizer, self.numbers), self.groups, strict=True)
        ):
            for key, value in now.items():
                self._check_seen(key, value)
                if key not in first or value != first[key]:
                    found |= self._stored(
                        f"{GROUP}{number}{BETWEEN}{key}", self.optimizer.param_groups[number][key], CPU
                    )
        return found

    def _stored(self, name: str, value: Any, home: torch.device) -> dict[str, Tensor]:
        """A value of the state as a tensor, whose name says what it was."""
        if isinstance(value, Tensor):
            return {f"{name}{BETWEEN}{'there' if value.device == home else 'cpu'}": value}
        if value is None:
            return {f"{name}{BETWEEN}none": torch.zeros(0)}
        if type(value) in NUMBERS:
            return {f"{name}{BETWEEN}number": torch.tensor(value, dtype=NUMBERS[type(value)])}
        raise self._refused(f"keeps a {type(value).__name__} as {name.split(BETWEEN)[1]!r}, which no checkpoint holds")

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from a stored `state`."""
        self.optimizer.state.clear()
        parameters = list(self.parameters.values())
        for name, tensor in state.items():
            owner, rest = name.split(BETWEEN, 1)
            key, kind = rest.rsplit(BETWEEN, 1)
            of_group = owner.startswith(GROUP)
            home = CPU if of_group or kind == "cpu" else parameters[int(owner)].device
            value = {"none": lambda: None, "number": tensor.item}.get(kind, lambda: tensor.to(home, copy=True))()  # noqa: B023
            if of_group:
                self.optimizer.param_groups[int(owner.removeprefix(GROUP))][key] = value
            else:
                self.optimizer.state[parameters[int(owner)]][key] = value

    def forget(self, returning: Tensor) -> None:
        """Resets what is kept of weights that come back, as if they had never been met."""
        sizes = [parameter.numel() for parameter in self.parameters.values()]
        for parameter, back in zip(self.parameters.values(), returning.split(sizes), strict=True):
            for value in self.optimizer.state.get(parameter, {}).values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.masked_fill_(back.view(parameter.shape), 0)

    def _check_beside(self) -> None:
        """Raises TrainingError, by name, for an attribute that changes, or might without being seen."""
        now = seen_beside(self.optimizer, self.numbers)
        for name in {**self.beside, **now}:
            self._check_seen(name, now.get(name))
            if now.get(name) != self.beside.get(name):
                raise self._refused(
                    f"changes {name!r}, which it keeps beside its state, where no checkpoint looks: keep it in "
                    "self.state[parameter], or as a number in a group"
                )

    def _check_seen(self, name: str, contents: Any) -> None:
        if (kind := unseen(contents)) is not None:
            raise self._refused(
                f"keeps a {kind} in {name!r}, and nobody can see whether it changes: for a checkpoint, keep what "
                "changes as tensors and numbers in self.state[parameter]"
            )

    def _refused(self, what: str) -> TrainingError:
        return TrainingError(f"the optimizer {self.name} {what}")
