"""`fit`: train a network while its masks hold, and be able to continue to the bit after a kill."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from tombola.data import DataSet
from tombola.errors import TrainingError
from tombola.models.tensors import content_sha256, save_tensors
from tombola.pruning import Masks
from tombola.training.batches import Batches
from tombola.training.checkpoint import load_checkpoint, save_checkpoint
from tombola.training.flat import FlatParameters
from tombola.training.gradients import gradients_of
from tombola.training.held import hold
from tombola.training.metrics import evaluate
from tombola.training.optimizers import OPTIMIZERS
from tombola.training.recipe import Recipe


@dataclass(frozen=True)
class Evaluation:
    """A look at the validation set after `iteration` iterations; accuracy is a share."""

    iteration: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Trained:
    """What a training leaves beside the model itself.

    `early_stop` is the evaluation of minimum validation loss (the first, if several), the early-stop
    iteration of Frankle & Carbin 2019; `early_stop_state` is the model's state there. `iteration` is the one
    reached, `trained` how many were run (fewer, when training began at a later step).
    """

    evaluations: list[Evaluation]
    early_stop: Evaluation
    early_stop_state: dict[str, Tensor]
    iteration: int
    trained: int
    seconds: float


OnEvaluation = Callable[[Evaluation, int], None]
"""Called after each evaluation with it and the total number of iterations."""


def fit(
    model: nn.Module,
    data: DataSet,
    recipe: Recipe,
    masks: Masks,
    seed: int,
    *,
    first: int = 0,
    capture: Mapping[int, Path] | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 10.0,
    on_evaluation: OnEvaluation | None = None,
) -> Trained:
    """Trains `model` in place on `data.train`; `seed` makes the order of the examples.

    Begins at iteration `first` of the recipe, as a network rewound to that step does, and writes the state
    reached after an iteration to the path that `capture` has for it. With `recipe.patience` it ends after so
    many evaluations without a lower validation loss, and the model is then that of its early stop.

    With a `checkpoint` path the state is written there about every `checkpoint_seconds` (at an evaluation),
    and a training that finds one continues from it to the same end, bit for bit, on one thread of the same
    machine. Raises TrainingError when the loss is no longer finite.
    """
    began = time.perf_counter()
    torch.manual_seed(seed)  # for models with layers that use chance
    run = Training(model, data, recipe, masks, seed, first)
    if checkpoint is not None:
        run.load(checkpoint)
    wanted = dict(capture or {})
    if run.iteration in wanted:
        save_tensors(wanted[run.iteration], model.state_dict())
    saved = time.perf_counter()
    model.train()
    # Patience waits until every wanted state is captured.
    while run.iteration < run.total and not (run.out_of_patience and run.iteration >= max(wanted, default=0)):
        run.advance()
        if run.iteration in wanted:
            save_tensors(wanted[run.iteration], model.state_dict())
        if run.iteration % run.every == 0 or run.iteration == run.total:
            evaluation = run.evaluate()
            if on_evaluation is not None:
                on_evaluation(evaluation, run.total)
            due = time.perf_counter() - saved >= checkpoint_seconds
            if checkpoint is not None and due and run.iteration < run.total:
                run.save(checkpoint, run.seconds + time.perf_counter() - began)
                saved = time.perf_counter()
    if recipe.patience is not None:
        model.load_state_dict(run.best_state)
    seconds = run.seconds + time.perf_counter() - began
    return Trained(run.evaluations, run.best, run.best_state, run.iteration, run.iteration - first, seconds)


@dataclass
class Training:
    """The moving parts of one training and their way to disk and back."""

    model: nn.Module
    data: DataSet
    recipe: Recipe
    masks: Masks
    seed: int
    first: int = 0
    seconds: float = 0.0
    evaluations: list[Evaluation] = field(default_factory=list)
    best_state: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.iteration = self.first
        self.fingerprint = self._fingerprint()
        self.flat = FlatParameters(self.model)
        self.reapply_masks = hold(self.flat, self.masks)
        self.batches = Batches(self.data.train, self.recipe.batch_size, self.seed, self.recipe.augmentation)
        self.per_epoch = self.batches.per_epoch
        self.total = self.recipe.length.iterations(self.per_epoch)
        self.every = self.recipe.evaluate_every.iterations(self.per_epoch)
        self.gradients = gradients_of(self.model, self.flat, self.batches.size)
        self.optimizer = OPTIMIZERS[self.recipe.optimizer](self.flat.values, self.flat.gradients, self.recipe)

    @property
    def best(self) -> Evaluation:
        return min(self.evaluations, key=lambda evaluation: evaluation.loss)

    @property
    def out_of_patience(self) -> bool:
        """Whether the last `recipe.patience` evaluations brought no lower validation loss."""
        if self.recipe.patience is None or not self.evaluations:
            return False
        return len(self.evaluations) - 1 - self.evaluations.index(self.best) >= self.recipe.patience

    def advance(self) -> None:
        """One iteration: gradients, update, masks."""
        self.gradients(*self.batches.at(self.iteration))
        self.optimizer.step(self.recipe.rate_at(self.iteration, self.per_epoch))
        self.reapply_masks()
        self.iteration += 1

    def evaluate(self) -> Evaluation:
        """Looks at the validation set and keeps the state if its loss is the lowest so far."""
        scores = evaluate(self.model, self.data.validation)
        if not math.isfinite(scores.loss):
            raise TrainingError(
                f"the validation loss is {scores.loss} after {self.iteration} iterations: training diverged, "
                f"lower training.learning_rate (now {self.recipe.learning_rate:g})"
            )
        evaluation = Evaluation(self.iteration, scores.loss, scores.accuracy)
        self.evaluations.append(evaluation)
        if self.best is evaluation:
            self.best_state = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
        return evaluation

    def save(self, path: Path, seconds: float) -> None:
        tensors = {
            "rng": torch.get_rng_state(),
            **{f"model.{name}": tensor for name, tensor in self.model.state_dict().items()},
            **{f"best.{name}": tensor for name, tensor in self.best_state.items()},
            **{f"optimizer.{name}": tensor for name, tensor in self.optimizer.state.items()},
        }
        evaluations = [asdict(evaluation) for evaluation in self.evaluations]
        facts = {"iteration": self.iteration, "seconds": seconds, "evaluations": evaluations}
        save_checkpoint(path, self.fingerprint, tensors, facts)

    def load(self, path: Path) -> None:
        found = load_checkpoint(path, self.fingerprint)
        if found is None:
            return
        tensors, facts = found
        self.iteration, self.seconds = facts["iteration"], facts["seconds"]
        self.evaluations = [Evaluation(**evaluation) for evaluation in facts["evaluations"]]
        self.model.load_state_dict(_part(tensors, "model."))  # copies into the flat vector
        self.best_state = _part(tensors, "best.")
        for name, tensor in _part(tensors, "optimizer.").items():
            self.optimizer.state[name].copy_(tensor)
        torch.set_rng_state(tensors["rng"])

    def _fingerprint(self) -> str:
        """Equal exactly for trainings that must end equal: start, masks, recipe, seed and data."""
        parts = [
            content_sha256(self.model.state_dict()),
            content_sha256(self.masks.to_tensors()),
            self.recipe.model_dump_json(),
            f"{self.seed} {self.first}",
            self.data.checksum,
            str(self.data.normalisation),
            content_sha256({"train": self.data.train.targets, "validation": self.data.validation.targets}),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
