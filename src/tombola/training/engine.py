"""Engines: how one iteration of training is computed. Two compute the same mathematics, the faster one is taken.

The dense engine multiplies whole matrices and puts removed weights back to 0; the sparse engine knows kept weights
only. They agree up to rounding, and each continues its own trainings to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from tombola.errors import KernelError, TrainingError
from tombola.kernels.target import host
from tombola.pruning import Masks
from tombola.training.batches import Batches
from tombola.training.classification import Classification, name_of
from tombola.training.device import autocast, device_of
from tombola.training.flat import FlatParameters
from tombola.training.gradients import gradients_of
from tombola.training.holding import Held
from tombola.training.optimizers import OPTIMIZERS, Optimizer
from tombola.training.own import MakeOptimizer, OwnOptimizer
from tombola.training.recipe import Recipe
from tombola.training.sparse.chain import Link, NoChainError, check_size, read_chain
from tombola.training.sparse.crossover import sparse_layers
from tombola.training.sparse.engine import SparseEngine
from tombola.training.task import BatchSource, Part, Scored, Task

EngineName = Literal["dense", "sparse"]
ANY_IMAGE, ANY_CLASSES = (3, 32, 32), 10
"""What every architecture takes: to ask for an engine before data say what images are like."""


class Engine(Protocol):
    """One training's way to compute. `state` is what a checkpoint must keep beside the model's weights."""

    name: EngineName
    identity: str
    """Trainings whose engines have another one are not continued by this."""

    @property
    def vector(self) -> Tensor:
        """All that learns, as one vector, which steps change in place."""

    def gradients(self, iteration: int) -> None:
        """Computes the gradients of an iteration's batch."""

    def update(self, rate: float) -> None:
        """An optimizer step with learning rate `rate`; removed weights are 0 after it."""

    def evaluate(self, part: Part) -> Scored:
        """The scores of the network as it is."""

    def write_back(self) -> None:
        """Makes the model's parameters those reached so far."""

    def read(self) -> None:
        """Goes on from the model's parameters, which somebody has changed."""

    @property
    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from a stored `state`."""


class DenseEngine:
    """Whole matrices, any network, masks that may change. The model's parameters are always those reached so far."""

    name: EngineName = "dense"
    identity = "dense"

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        source: BatchSource,
        recipe: Recipe,
        masks: Masks,
        own: MakeOptimizer | None = None,
    ) -> None:
        self.model = model
        self.task = task
        masks.apply_(model)  # of frozen layers, too, which no step touches
        self.flat = FlatParameters(model)
        self.held = Held(self.flat, masks)
        self.precision = recipe.precision
        self._gradients = gradients_of(model, self.flat, task, source, recipe.precision)
        self.own = own is not None
        self.optimizer: Optimizer | OwnOptimizer
        if own is not None:
            self.optimizer = OwnOptimizer(own, self.flat, recipe)
        else:
            self.optimizer = OPTIMIZERS[recipe.optimizer](self.flat.values, self.flat.gradients, recipe)

    @property
    def vector(self) -> Tensor:
        return self.flat.values

    def gradients(self, iteration: int) -> None:
        self._gradients(iteration)

    def update(self, rate: float) -> None:
        if self.own:  # it may look at more than one weight at a time; ours treat each by itself
            self.held.silence()
        self.optimizer.step(rate)
        self.held.reapply()

    def evaluate(self, part: Part) -> Scored:
        with autocast(self.flat.values.device, self.precision):
            return self.task.scores(self.model, part)

    def write_back(self) -> None:
        """The parameters are views of the vector that training changes: nothing to do."""

    def read(self) -> None:
        """Nothing to do, either."""

    @property
    def state(self) -> dict[str, Tensor]:
        return self.optimizer.state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.optimizer.load_state(state)


def check_trainable(model: nn.Module) -> None:
    """Raises TrainingError, by name, for a model that no engine trains or whose state no checkpoint can hold."""
    parameters = dict(model.named_parameters())
    if odd := [name for name, parameter in parameters.items() if parameter.dtype != torch.float32]:
        raise TrainingError(f"{odd[0]}: training needs float32 parameters")
    device = device_of(model)
    places = {**parameters, **dict(model.named_buffers())}
    if odd := [name for name, tensor in places.items() if tensor.device != device or tensor.is_meta]:
        raise TrainingError(f"{odd[0]}: training needs a model with all its tensors on one device, and values in them")
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise TrainingError("there is nothing to train: the model has no parameter that requires a gradient")
    extra = [name for name, kept in model.state_dict().items() if not isinstance(kept, Tensor)]
    if extra:
        raise TrainingError(
            f"{extra[0]}: the model keeps extra state that is no tensor, which no checkpoint of a training can hold; "
            "make it a buffer"
        )


def make_engine(
    model: nn.Module,
    task: Task,
    source: BatchSource,
    recipe: Recipe,
    masks: Masks,
    *,
    evolving: bool = False,
    own: MakeOptimizer | None = None,
) -> Engine:
    """The engine that the recipe asks for; with `auto` the faster one for these masks.

    `own` makes somebody's own optimizer, in the place of the recipe's.

    Raises TrainingError where `sparse` is asked for and cannot be had.
    """
    sparse = layers_on_kernels(model, recipe, masks, source.size, task=task, evolving=evolving, own=own)
    if not any(sparse):
        return DenseEngine(model, task, source, recipe, masks, own)
    assert isinstance(task, Classification)  # the sparse engine knows no other
    assert isinstance(source, Batches)
    return SparseEngine(model, read_chain(model), sparse, task, source, recipe, masks)


def layers_on_kernels(
    model: nn.Module,
    recipe: Recipe,
    masks: Masks,
    batch: int,
    *,
    task: Task | None = None,
    evolving: bool = False,
    own: MakeOptimizer | None = None,
) -> list[bool]:
    """Which layers of a chain the recipe's engine trains on sparse kernels; none of a network that is no chain.

    Where the task is known, one that is no plain classification, or has images that are too large for kernels, is an
    obstacle, too.
    """
    try:
        _refuse_for_kernels(recipe, device_of(model), own)
        shape = None if task is None else _shape_for_kernels(task)
        chain = _trainable_chain(model, evolving)
        if shape is not None:
            check_size(chain, shape)
    except NoChainError as obstacle:
        if recipe.engine == "sparse":
            raise TrainingError(f"the engine sparse {obstacle}; set the engine to auto or dense") from None
        return []
    if recipe.engine == "dense":
        return []
    return sparse_layers(model, chain, masks, batch, everything=recipe.engine == "sparse")


def _refuse_for_kernels(recipe: Recipe, device: torch.device, own: MakeOptimizer | None) -> None:
    """Raises NoChainError for what kernels do not compute on or in."""
    kind = recipe.device if device.type == "cpu" and recipe.device != "auto" else device.type  # it may yet go there
    if kind != "cpu":
        raise NoChainError(f"is for the CPU, and this training is on {kind}")
    if recipe.precision != "float32":
        raise NoChainError(f"computes in float32, and the precision asked for is {recipe.precision}")
    if own is not None or recipe.optimizer not in OPTIMIZERS:
        raise NoChainError("knows the optimizers sgd, adam and adamw only, and this one is your own")
    if recipe.loss is not None:
        raise NoChainError("knows the cross-entropy only, and this loss is your own")


def _shape_for_kernels(task: Task) -> tuple[int, ...]:
    """The shape of an example of a task that kernels know. Raises NoChainError for any other."""
    if not isinstance(task, Classification):
        raise NoChainError(f"knows classification only, and this task is {task.name}")
    if not task.plain:
        own = "a loss of its own" if type(task) is Classification else f"a class of its own ({name_of(type(task))})"
        raise NoChainError(f"knows the cross-entropy only, and this task has {own}")
    return tuple(task.arrays("train").inputs.shape[1:])


def _trainable_chain(model: nn.Module, evolving: bool) -> list[Link]:
    """The layers of a network that the sparse engine can train. Raises NoChainError for any other."""
    if evolving:
        raise NoChainError("cannot follow masks that change while a network learns")
    chain = read_chain(model)
    try:
        host()
    except KernelError as error:
        raise NoChainError(f"does not run here: {error}") from None
    return chain
