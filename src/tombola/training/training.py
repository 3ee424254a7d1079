"""`Training`: the moving parts of one training, and their way to disk and back."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tombola.data import DataSet
from tombola.errors import TrainingError
from tombola.models.tensors import content_sha256, save_tensors
from tombola.pruning import Masks
from tombola.runs.seeds import derive_seed
from tombola.training.checkpoint import load_checkpoint, save_checkpoint
from tombola.training.classification import as_task
from tombola.training.code import own_sha256
from tombola.training.device import (
    device_of,
    random_states,
    said,
    set_random_states,
)
from tombola.training.ema import Average, decay_of
from tombola.training.engine import DenseEngine, check_trainable, make_engine
from tombola.training.evolution import Evolution, Moment, Plan
from tombola.training.looking import tensors_of
from tombola.training.own import OwnFunctions, with_own_loss
from tombola.training.recipe import Recipe
from tombola.training.task import Task
from tombola.training.trained import Averaged, Evaluation


@dataclass
class Training:
    """The moving parts of one training and their way to disk and back."""

    model: nn.Module
    data: DataSet | Task
    recipe: Recipe
    masks: Masks
    seed: int
    first: int = 0
    evolution: Evolution | None = None
    own: OwnFunctions | None = None
    seconds: float = 0.0
    evaluations: list[Evaluation] = field(default_factory=list)
    best_state: dict[str, Tensor] = field(default_factory=dict)
    best_averaged_state: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_trainable(self.model)
        self.task = with_own_loss(as_task(self.data), self.recipe)
        self.functions = self.own or OwnFunctions.of(self.recipe, None, None)
        self.iteration = self.first
        self.device = device_of(self.model)
        start = self._fingerprint()
        self.task = self.task.on(self.device)
        self.batches = self.task.batches(self.recipe.batch_size, self.seed, self.recipe.augmentation)
        self.per_epoch = self.batches.per_epoch
        self.total = self.recipe.length.iterations(self.per_epoch)
        self.every = self.recipe.evaluate_every.iterations(self.per_epoch)
        self.constant_rate = None if self.functions.schedule else self.recipe.constant_rate(self.per_epoch)
        self.updates: Plan = {}
        if self.evolution is not None:
            self.updates = self.evolution.plan(self._moment(), self.per_epoch, self.total)
            self.masks = self.evolution.start(self._moment())
        self.settled = max(self.updates, default=-1) + 1
        evolving = self.evolution is not None
        self.engine = make_engine(
            self.model,
            self.task,
            self.batches,
            self.recipe,
            self.masks,
            evolving=evolving,
            own=self.functions.optimizer,
        )
        self.average = None
        if self.recipe.ema is not None:
            decay = decay_of(self.recipe.ema, self.total - self.first)
            self.average = Average(self.model, self.engine, decay)
        self.fingerprint = hashlib.sha256(f"{start} {self.engine.identity}".encode()).hexdigest()

    @property
    def candidates(self) -> list[Evaluation]:
        """The evaluations that may be the early stop: those of the final masks."""
        return [evaluation for evaluation in self.evaluations if evaluation.iteration >= self.settled]

    @property
    def best(self) -> Evaluation:
        return min(self.candidates, key=lambda evaluation: evaluation.loss)

    @property
    def best_averaged(self) -> Evaluation:
        """Of the evaluations of averaged weights that may be their early stop."""
        found = [evaluation.averaged for evaluation in self.candidates if evaluation.averaged is not None]
        return min(found, key=lambda evaluation: evaluation.loss)

    @property
    def out_of_patience(self) -> bool:
        """Whether the last `recipe.patience` evaluations brought no lower validation loss."""
        if self.recipe.patience is None or not self.candidates:
            return False
        return len(self.candidates) - 1 - self.candidates.index(self.best) >= self.recipe.patience

    def advance(self) -> None:
        """One iteration: gradients, update, masks."""
        self.engine.gradients(self.iteration)
        amount = self.updates.get(self.iteration)
        if amount is None:
            self._step()
        else:
            self._evolve(amount)
        if self.average is not None:
            self.average.update()
        self.iteration += 1

    def capture(self, wanted: Mapping[int, Path]) -> None:
        """Writes the state reached to the path that `wanted` has for the iteration, if any."""
        if self.iteration in wanted:
            self.engine.write_back()
            save_tensors(wanted[self.iteration], self.model.state_dict())

    def _step(self) -> None:
        constant = self.constant_rate
        if constant is None:
            self.engine.update(self.functions.rate(self.recipe, self.iteration, self.per_epoch))
        else:
            self.engine.update(constant)

    def _evolve(self, amount: float) -> None:
        """An iteration at which the masks change: after the optimizer step, or in its place."""
        assert self.evolution is not None
        assert isinstance(self.engine, DenseEngine)
        if not self.evolution.replaces_step:
            self._step()
        flat = self.engine.flat
        if not bool(torch.isfinite(flat.values).all() and torch.isfinite(flat.gradients).all()):
            raise self._diverged("weights or gradients are not finite")
        self._replace_masks(self.evolution.next_masks(self._moment(), amount))

    def _replace_masks(self, masks: Masks) -> None:
        assert isinstance(self.engine, DenseEngine)
        self.masks = masks
        masks.apply_(self.model)
        self.engine.held.replace(masks, self.engine.optimizer.forget)
        if self.average is not None and self.engine.held.multiplier is not None:
            self.average.hold(self.engine.held.multiplier)

    def _moment(self) -> Moment:
        loss = self.task.criterion_loss
        return Moment(self.model, self.masks, self.iteration, self.seed, self._scoring_batches, loss)

    def _scoring_batches(self, count: int) -> list[tuple[Any, Any]]:
        """Training examples, not augmented, for criteria that look at data: new ones at every iteration."""
        seed = derive_seed(self.seed, "scoring", self.iteration)
        return self.task.scoring(self.recipe.batch_size, count, seed)

    def evaluate(self) -> Evaluation:
        """Looks at the validation set and keeps the state if its loss is the lowest so far.

        From here on, and until the next step, the model has the weights that are evaluated.
        """
        self.engine.write_back()
        evaluation = self._evaluated("the validation loss")
        if self.average is not None:
            with self.average.in_place():
                averaged = self._evaluated("the validation loss of the averaged weights")
                evaluation = replace(evaluation, averaged=averaged)
                self.evaluations.append(evaluation)
                if self.iteration >= self.settled and self.best_averaged is averaged:
                    self.best_averaged_state = self._state()
        else:
            self.evaluations.append(evaluation)
        if self.iteration >= self.settled and self.best is evaluation:
            self.best_state = self._state()
        return evaluation

    def _evaluated(self, what: str) -> Evaluation:
        scores = self.engine.evaluate("validation")
        if not math.isfinite(scores.loss):
            raise self._diverged(f"{what} is {scores.loss}")
        return Evaluation(self.iteration, scores.loss, scores.values)

    def _state(self) -> dict[str, Tensor]:
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.model.state_dict().items()}

    def averaged(self) -> Averaged | None:
        """What averaging left so far; to ask for after an evaluation."""
        if self.average is None:
            return None
        with self.average.in_place():
            state = self._state() if self.recipe.patience is None else self.best_averaged_state
        return Averaged(state, self.best_averaged, self.best_averaged_state)

    def _diverged(self, symptom: str) -> TrainingError:
        return TrainingError(
            f"{symptom} after {self.iteration} iterations: training diverged, "
            f"lower the learning rate (now {self.recipe.learning_rate:g})"
        )

    def save(self, path: Path, seconds: float) -> None:
        self.engine.write_back()
        tensors = {
            **random_states(self.device),
            **{f"model.{name}": tensor for name, tensor in tensors_of(self.model).items()},
            **{f"best.{name}": tensor for name, tensor in self.best_state.items()},
            **{f"optimizer.{name}": tensor for name, tensor in self.engine.state.items()},
        }
        if self.evolution is not None:
            tensors |= {f"masks.{name}": mask.keep for name, mask in self.masks.items()}
        evaluations = [asdict(evaluation) for evaluation in self.evaluations]
        facts = {"iteration": self.iteration, "seconds": seconds, "evaluations": evaluations}
        if self.average is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.average.state.items()}
            tensors |= {f"best_ema.{name}": tensor for name, tensor in self.best_averaged_state.items()}
            facts["ema_updates"] = self.average.updates
        save_checkpoint(path, self.fingerprint, said(self.device), tensors, facts)

    def load(self, path: Path) -> None:
        found = load_checkpoint(path, self.fingerprint, said(self.device))
        if found is None:
            return
        tensors, facts = found
        self.iteration, self.seconds = facts["iteration"], facts["seconds"]
        self.evaluations = [Evaluation.from_facts(evaluation) for evaluation in facts["evaluations"]]
        if self.evolution is not None:  # before the rest, because it resets values and optimizer state
            found_masks = _part(tensors, "masks.")
            self._replace_masks(Masks.from_tensors({name: found_masks[name] for name in self.masks}))
        self._take(_part(tensors, "model."))
        self.best_state = _part(tensors, "best.")
        self.engine.load_state(_part(tensors, "optimizer."))
        if self.average is not None:
            self.average.load_state(_part(tensors, "ema."), facts["ema_updates"])
            self.best_averaged_state = _part(tensors, "best_ema.")
        set_random_states(tensors, self.device)

    @torch.no_grad()
    def _take(self, stored: Mapping[str, Tensor]) -> None:
        """Goes on from stored parameters and buffers, copied into those that the engine works on."""
        for name, tensor in tensors_of(self.model).items():
            tensor.copy_(stored[name])
        self.engine.read()

    def _fingerprint(self) -> str:
        """Equal exactly for trainings that must end equal on one device: start, masks, recipe, seed and data."""
        parts = [
            content_sha256(self.model.state_dict()),
            content_sha256(self.masks.to_tensors()),
            self.recipe.model_dump_json(exclude={"device"}),
            f"{self.seed} {self.first}",
            self.task.name,
            *self.task.identity(),
            *self.functions.identity,
            *_frozen(self.model),
        ]
        if own := own_sha256(self.task):
            parts.append(own)
        if self.evolution is not None:
            parts.append(self.evolution.model_dump_json())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _frozen(model: nn.Module) -> list[str]:
    """The modules that stay in evaluation mode while the model trains."""
    return [f"{name} is frozen" for name, module in model.named_modules() if model.training and not module.training]


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
