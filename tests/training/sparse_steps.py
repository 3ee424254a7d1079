"""Sparse engines, masks and exact gradients for tests of sparse steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.data import DataSet, Examples
from tombola.pruning import Mask, Masks
from tombola.training import Recipe
from tombola.training.classification import Classification, as_task
from tombola.training.engine import Engine, make_engine
from tombola.training.sparse.chain import read_chain
from tombola.training.sparse.engine import SparseEngine
from tombola.training.task import Task
from tombola.training.trained import Evaluation

OPTIMIZER_RECIPES = [
    {"optimizer": "sgd", "learning_rate": 0.1},
    {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
    {"optimizer": "adam", "weight_decay": 1e-3},
    {"optimizer": "adamw", "weight_decay": 1e-2},
]


def recipe(**changes: object) -> Recipe:
    return Recipe(**{"length": "60it", "evaluate_every": "10it", "learning_rate": 1.2e-3, **changes})


def random_masks(model: nn.Module, densities: list[float]) -> Masks:
    """Of the given densities; some layers may keep nothing, some rows certainly do."""
    weights = {name: p for name, p in model.named_parameters() if p.dim() > 1}
    drawn = zip(weights.items(), densities, strict=True)
    return Masks({name: Mask(torch.rand_like(weight) < density) for (name, weight), density in drawn})


def task_of(examples: Examples, evaluated: Examples | None = None) -> Classification:
    """Their classes; `evaluated` are the validation part, where they are not the same."""
    return Classification(DataSet("own", examples, evaluated or examples, examples, 10, "own"))


def engine_of(model: nn.Module, data: DataSet | Task, chosen: Recipe, masks: Masks, batch: int = 64) -> Engine:
    """The engine that `fit` would take, for batches of another size than the recipe's."""
    task = as_task(data)
    return make_engine(model, task, task.batches(batch, 0), chosen, masks)


def sparse_engine(
    model: nn.Module, masks: Masks, examples: Examples | Classification, on_kernels: list[bool], **recipe_: object
) -> SparseEngine:
    chosen, task = recipe(**recipe_), task_of(examples) if isinstance(examples, Examples) else examples
    batches = task.batches(chosen.batch_size, 3, chosen.augmentation)
    return SparseEngine(model, read_chain(model), on_kernels, task, batches, chosen, masks)


def exact_gradients(model: nn.Module, masks: Masks, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """By autograd in float64, of the masked network; 0 at removed weights."""
    parameters = {name: p.detach().double().requires_grad_() for name, p in model.named_parameters()}
    held = {n: p * masks[n].keep if n in masks else p for n, p in parameters.items()}
    functional.cross_entropy(torch.func.functional_call(model.double(), held, inputs.double()), targets).backward()
    model.float()
    return {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}


def engine_gradients(engine: SparseEngine, model: nn.Module) -> dict[str, Tensor]:
    """What the engine computed, laid out like the module's parameters."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for layer in engine.layers:
        dense = torch.zeros(layer.module.weight.numel())
        dense[layer._places()] = layer.weight_gradients
        found[names[id(layer.module.weight)]] = dense.view_as(layer.module.weight)
        if layer.module.bias is not None:
            found[names[id(layer.module.bias)]] = layer.bias_gradients
    return found


def kill_at(iteration: int) -> Callable[[Evaluation, int], None]:
    """For `on_evaluation`: as Ctrl-C after so many iterations."""

    def stop(evaluation: Evaluation, total: int) -> None:
        if evaluation.iteration == iteration:
            raise KeyboardInterrupt

    return stop
