"""`fit`: train a network while its masks hold, and be able to continue to the bit after a kill."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from tombola.data import DataSet
from tombola.pruning import Masks
from tombola.runs import stopping
from tombola.training.device import (
    placed,
)
from tombola.training.engine import check_trainable
from tombola.training.evolution import Evolution
from tombola.training.looking import only_looking
from tombola.training.own import MakeOptimizer, OwnFunctions
from tombola.training.recipe import Recipe, Schedule
from tombola.training.task import Task
from tombola.training.trained import OnEvaluation, Trained
from tombola.training.training import Training


def fit(
    model: nn.Module,
    data: DataSet | Task,
    recipe: Recipe,
    masks: Masks,
    seed: int,
    *,
    first: int = 0,
    capture: Mapping[int, Path] | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 10.0,
    on_evaluation: OnEvaluation | None = None,
    evolution: Evolution | None = None,
    optimizer: MakeOptimizer | None = None,
    schedule: Schedule | None = None,
) -> Trained:
    """Trains a model in place, its masks held after every step.

    Args:
        model: A float32 network, on the CPU or on the recipe's device; afterwards it is where it was. Of a network in
            training mode, modules in evaluation mode stay so: a batch norm that you froze by `eval()` keeps its
            statistics. One that is in evaluation mode as a whole is set to train as a whole.
        data: A task, or a data set whose classes are to be learned.
        recipe: Device, optimizer, learning rates, length, how often it is evaluated; with `recipe.patience` training
            ends after so many evaluations without a lower validation loss; the model is then that of its early stop.
        masks: What is removed stays exactly 0. With an `evolution` they are the first ones (full ones, for a random
            start of `set` and `rigl`), and `Trained.masks` are the last.
        seed: Makes the order of the examples, and all other chance.
        first: The iteration of the recipe to begin at, as a network rewound to that step does.
        capture: Paths by iteration: the state reached after it is written there.
        checkpoint: A file for the state in progress. A training that finds one continues from it to the same end, bit
            for bit, on one thread of the same machine and on the same device. It knows functions of your own by their
            names, so that lambdas, closures and partials are refused beside it.
        checkpoint_seconds: How often it is written, at an evaluation.
        on_evaluation: Called after each evaluation with it and the number of iterations; it may look and change
            nothing.
        evolution: How masks change on the way; patience begins to count after the last change.
        optimizer: A function of your own in place of the recipe's optimizer: from named parameters and the learning
            rate to a `torch.optim.Optimizer`.
        schedule: A function of your own in place of the recipe's schedule: from the iteration and how many there are to
            what the learning rate is multiplied by.

    Returns:
        Trained: the evaluations, the early stop and its weights, the masks, what it cost; all on the CPU.

    Raises:
        TrainingError: when the loss is no longer finite, and for models that cannot be trained so.
        ConfigError: where there is no such device.

    Examples:
        >>> from tombola import prune
        >>> from tombola.data import DataConfig, load_data
        >>> from tombola.models import ModelSpec, build
        >>> data = load_data(DataConfig(name="digits"), seed=0)
        >>> model = build(ModelSpec(input_shape=data.input_shape, classes=data.classes, seed=0, widths=(20, 10)))
        >>> masks = prune(model, 0.5)
        >>> recipe = Recipe(length="100it", evaluate_every="50it", learning_rate="1e-2")
        >>> trained = fit(model, data, recipe, masks, seed=0)
        >>> [evaluation.iteration for evaluation in trained.evaluations], masks.removed_nonzeros(model)
        ([50, 100], 0)
    """
    check_trainable(model)  # before it is moved
    with placed(model, recipe.device):
        torch.manual_seed(seed)  # for models with layers that use chance
        own = OwnFunctions.of(recipe, optimizer, schedule)
        run = Training(model, data, recipe, masks, seed, first, evolution, own)
        return _run(run, dict(capture or {}), checkpoint, checkpoint_seconds, on_evaluation)


def _run(
    run: Training,
    wanted: Mapping[int, Path],
    checkpoint: Path | None,
    checkpoint_seconds: float,
    on_evaluation: OnEvaluation | None,
) -> Trained:
    """The whole of a training, from its checkpoint where there is one."""
    model, began = run.model, time.perf_counter()
    if checkpoint is not None:
        run.functions.check_named(run.recipe, run.task)
        dict(run.engine.state)  # refuses what no checkpoint holds now, and not after the first hours
        run.load(checkpoint)
    run.capture(wanted)
    saved = time.perf_counter()
    if not model.training:
        model.train()
    # Patience waits until every wanted state is captured.
    try:
        while run.iteration < run.total and not (run.out_of_patience and run.iteration >= max(wanted, default=0)):
            stopping.check()
            run.advance()
            run.capture(wanted)
            if run.iteration % run.every == 0 or run.iteration == run.total:
                evaluation = run.evaluate()
                if on_evaluation is not None:
                    with only_looking(model, run.iteration):
                        on_evaluation(evaluation, run.total)
                due = time.perf_counter() - saved >= checkpoint_seconds
                if checkpoint is not None and due and run.iteration < run.total:
                    run.save(checkpoint, run.seconds + time.perf_counter() - began)
                    saved = time.perf_counter()
    finally:  # who catches what was raised finds the weights that were reached, too
        run.engine.write_back()
    averaged = run.averaged()
    if run.recipe.patience is not None:
        model.load_state_dict(run.best_state)
    return Trained(
        run.evaluations,
        run.best,
        run.best_state,
        run.masks.cpu(),
        run.iteration,
        run.iteration - run.first,
        run.seconds + time.perf_counter() - began,
        run.engine.name,
        averaged,
    )
