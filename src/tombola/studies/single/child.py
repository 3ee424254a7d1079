"""How a child is made: its parent is copied, pruned and fine-tuned, round by round.

Masks of every round and the state of a fine-tuning in progress are on disk for a making that was killed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tombola.data import DataSet
from tombola.errors import PruningError
from tombola.models.tensors import load_tensors_like, save_tensors
from tombola.pruning import Masks, prune
from tombola.pruning.copies import copy_of
from tombola.pruning.criteria import Needs, make_criterion
from tombola.pruning.emptied import not_warning
from tombola.pruning.observe import output_weights
from tombola.pruning.prunable import weight_layouts
from tombola.pruning.structures import Neuron, make_structure
from tombola.pruning.units import count_units, fraction_of_all
from tombola.runs.atomic import make_folder
from tombola.runs.seeds import derive_seed
from tombola.studies.base.averaging import averaged_state
from tombola.studies.base.watching import SILENT, Progress
from tombola.studies.single.config import Distillation, Pruning
from tombola.studies.single.metrics import units_removed
from tombola.training import Classification, Recipe, Step, Task, Trained, fit
from tombola.training.batches import draw_batches, iterations_per_epoch
from tombola.training.device import placed
from tombola.training.distillation import Distilled
from tombola.training.evolution import Evolution, Gradual
from tombola.training.own import loss_of
from tombola.training.trained import OnEvaluation

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Making:
    """Everything a child depends on. `folder` keeps what a killed making continues from."""

    parent: nn.Module
    masks: Masks
    data: DataSet
    pruning: Pruning
    recipe: Recipe | None
    batch_size: int
    seed: int
    folder: Path
    checkpoint_seconds: float
    distillation: Distillation | None = None

    @functools.cached_property
    def spared(self) -> tuple[str, ...]:
        """The layer whose outputs are the model's own, where the structure would remove outputs."""
        structure = make_structure(self.pruning.structure)
        if not isinstance(structure, Neuron):
            return ()
        layouts = weight_layouts(self.parent)
        names = output_weights(self.parent, self.data.train.inputs[:2])
        return tuple(name for name in names if structure.fits(layouts[name]))

    @functools.cached_property
    def task(self) -> Task:
        """What fine-tuning learns."""
        return learned(self.data, self.parent, self.distillation)

    @property
    def protected(self) -> tuple[str, ...]:
        return self.pruning.protect + self.spared

    def fraction_of_all(self, sparsity: float) -> float:
        """`sparsity` of the units that count, as the fraction of all units that `prune` goes by."""
        counts = count_units(self.parent, self.masks, make_structure(self.pruning.structure))
        return fraction_of_all(sparsity, counts, self.spared)


def learned(data: DataSet, parent: nn.Module, distillation: Distillation | None) -> Task:
    """What a fine-tuning learns: the targets, and where there is a `distillation` the parent's answers as well."""
    task = Classification(data)
    return task if distillation is None else Distilled(task, parent, distillation.temperature, distillation.weight)


@dataclass(frozen=True)
class Child:
    """A pruned and perhaps fine-tuned model; it shares no storage with its parent."""

    model: nn.Module
    masks: Masks
    trainings: list[Trained]
    spared: tuple[str, ...]

    @property
    def averaged(self) -> Mapping[str, Tensor] | None:
        """The state with averaged weights of its last fine-tuning, where that averaged any."""
        return averaged_state(self.trainings[-1]) if self.trainings else None


def make_child(making: Making, on_progress: OnProgress) -> Child:
    """Prunes and fine-tunes. The weights of each fine-tuning are those of its lowest validation loss.

    Where whole outputs are removed, the layer that gives the model's own outputs is spared: these are the classes,
    and they do not count among the units of which a fraction goes.
    """
    return _gradually(making, on_progress) if making.pruning.schedule.gradual else _in_rounds(making, on_progress)


def reporting(stage: str, on_progress: OnProgress) -> OnEvaluation:
    """What `fit` is to call, so that its evaluations become progress of `stage`."""
    return lambda evaluation, total: on_progress(
        Progress(stage, evaluation.iteration, total, f"validation {evaluation.accuracy:.2%}")
    )


@dataclass(frozen=True)
class _Watched:
    """Batches that tell how far a criterion has got with them."""

    batches: Sequence[Any]
    stage: str
    on_progress: OnProgress

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self.batches):
            self.on_progress(Progress(self.stage, number, len(self.batches)))
            yield batch


def prune_once(making: Making) -> Masks:
    """The masks of pruning in one step, without a file or a training."""
    return _pruned(making, making.parent, making.masks, 1, making.pruning.sparsity, SILENT.progress)


def under_masks(model: nn.Module, masks: Masks) -> nn.Module:
    """A copy of the model under masks: what removing alone does."""
    copied = copy_of(model)
    masks.apply_(copied)
    return copied


def _in_rounds(making: Making, on_progress: OnProgress) -> Child:
    model, masks = copy_of(making.parent), making.masks
    make_folder(making.folder)
    trainings: list[Trained] = []
    removed, units = units_removed(making.parent, making.masks, making.pruning.structure, making.spared)
    targets = making.pruning.schedule.targets(making.pruning.sparsity, removed / units if units else 0.0)
    for number, target in enumerate(targets, start=1):
        masks = _round(making, model, masks, number, target, on_progress)
        if making.recipe is not None:
            stage = "fine-tuning" if len(targets) == 1 else f"round {number} of {len(targets)}"
            look = reporting(stage, on_progress)
            trainings.append(_fine_tune(making, model, masks, number, f"round-{number:02d}", look))
    return Child(model, masks, trainings, making.spared)


def _round(
    making: Making, model: nn.Module, masks: Masks, number: int, target: float | None, on_progress: OnProgress
) -> Masks:
    """The masks of a round: stored ones, or those pruned now from the model as it is."""
    path = making.folder / f"round-{number:02d}-masks.safetensors"
    if path.exists():
        stored = load_tensors_like(path, masks.to_tensors())
        new = Masks.from_tensors(stored)
    else:
        new = _pruned(making, model, masks, number, target, on_progress)
        save_tensors(path, new.to_tensors())
    new.apply_(model)
    return new


def _pruned(
    making: Making, model: nn.Module, masks: Masks, number: int, target: float | None, on_progress: OnProgress
) -> Masks:
    pruning = making.pruning
    seed = derive_seed(making.seed, "criterion", number)
    count = 1 if make_criterion(pruning.criterion).needs is Needs.EXAMPLE else pruning.score_batches
    batches = draw_batches(making.data.train, making.batch_size, count, seed)
    with not_warning(), placed(model, device_asked(making.recipe)):  # the table of layers says it, once
        new = prune(
            model,
            None if target is None else making.fraction_of_all(target),
            criterion=pruning.criterion,
            structure=pruning.structure,
            distribution=pruning.distribution,
            masks=masks,
            batches=_Watched(batches, f"scoring by {pruning.criterion}", on_progress),
            loss=loss_of(making.recipe),
            protect=making.protected,
            min_keep=pruning.min_keep,
            seed=seed,
        )
    return new.cpu()


def device_asked(recipe: Recipe | None) -> str:
    """Where a model is scored: on the device of its fine-tuning, if it gets one."""
    return "cpu" if recipe is None else recipe.device


def _fine_tune(
    making: Making,
    model: nn.Module,
    masks: Masks,
    number: int,
    name: str,
    look: OnEvaluation,
    evolution: Evolution | None = None,
) -> Trained:
    """Trains the model and gives it the weights of its lowest validation loss; `name` is its checkpoint's."""
    assert making.recipe is not None
    trained = fit(
        model,
        making.task,
        making.recipe,
        masks,
        derive_seed(making.seed, "fine-tuning", number),
        checkpoint=making.folder / f"{name}.checkpoint.safetensors",
        checkpoint_seconds=making.checkpoint_seconds,
        on_evaluation=look,
        evolution=evolution,
    )
    model.load_state_dict(trained.early_stop_state)
    return trained


def _gradually(making: Making, on_progress: OnProgress) -> Child:
    """The masks follow a cubic curve in the first half of the fine-tuning; it recovers in the second half."""
    assert making.recipe is not None
    pruning, rounds, asked = making.pruning, making.pruning.schedule.rounds, making.pruning.sparsity
    assert asked is not None  # the configs ask for both
    length = making.recipe.length.iterations(iterations_per_epoch(len(making.data.train), making.recipe.batch_size))
    every = length // 2 // rounds
    if not every:
        raise PruningError(
            f"{rounds} steps do not fit into the first half of {length} iterations: fine-tune longer, or fewer steps"
        )
    sparsity = making.fraction_of_all(asked)
    if not sparsity:
        raise PruningError(f"sparsity {asked:g} rounds to none of the {pruning.structure}s: ask for more")
    model = copy_of(making.parent)
    make_folder(making.folder)
    evolution = Gradual(
        sparsity=sparsity,
        criterion=pruning.criterion,
        structure=pruning.structure,
        distribution=pruning.distribution,
        protect=making.protected,
        end=Step(extra=every * rounds),
        every=Step(extra=every),
        min_keep=pruning.min_keep,
        score_batches=pruning.score_batches,
    )
    look = reporting("pruning and fine-tuning", on_progress)
    trained = _fine_tune(making, model, making.masks, 1, "gradual", look, evolution)
    return Child(model, trained.masks, [trained], making.spared)
