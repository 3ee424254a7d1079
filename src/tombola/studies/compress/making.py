"""How a candidate is made: of the one before it, whose weights or units become fewer, and which is trained again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from tombola.compression.removal.plan import plan_removal
from tombola.compression.removal.remove import remove_units
from tombola.errors import PruningError
from tombola.models.config import Spec
from tombola.pruning import Masks, prune
from tombola.pruning.copies import copy_of
from tombola.pruning.emptied import not_warning
from tombola.runs.seeds import derive_seed
from tombola.studies.compress.config import CompressConfig
from tombola.studies.compress.paths import SearchPath
from tombola.studies.single.child import learned
from tombola.studies.single.parents import Parent
from tombola.training import fit
from tombola.training.batches import draw_batches
from tombola.training.own import loss_of
from tombola.training.trained import OnEvaluation

RANKINGS = {"global": "global", "uniform": "group"}
"""What a distribution over layers is called where the layers are coupled."""


@dataclass(frozen=True)
class Shape:
    """A network as it is at one sparsity of its path."""

    model: nn.Module
    masks: Masks
    spec: Spec
    sparsity: float = 0.0

    @classmethod
    def of(cls, parent: Parent) -> Shape:
        """The parent, where a path begins."""
        return cls(parent.model, parent.masks, parent.spec)


@dataclass(frozen=True)
class Made:
    """A candidate, and whether exactly as many weights are gone as asked; None where units, or none, are."""

    shape: Shape
    exact: bool | None


def make(
    config: CompressConfig,
    parent: Parent,
    path: SearchPath,
    start: Shape,
    sparsity: float,
    checkpoint: Path,
    on_evaluation: OnEvaluation,
) -> Made:
    """The candidate of a path at one sparsity. Raises PruningError where nothing can go."""
    if path.structure == "dense" or (path.structure == "weight" and sparsity == parent.masks.sparsity):
        return Made(Shape(parent.model, parent.masks, parent.spec, sparsity), None)
    seed = derive_seed(config.seed, "compress", path.name, f"{sparsity:g}")
    made = _fewer_weights if path.structure == "weight" else _fewer_units
    smaller = made(config, parent, path, start, sparsity, seed)
    _fine_tune(config, parent, smaller.shape, seed, checkpoint, on_evaluation)
    return smaller


def _fewer_weights(
    config: CompressConfig, parent: Parent, path: SearchPath, start: Shape, sparsity: float, seed: int
) -> Made:
    model = copy_of(start.model)
    with not_warning():  # the row says it
        masks = prune(
            model,
            sparsity,
            criterion=config.criterion,
            distribution=str(path.distribution),
            masks=start.masks,
            batches=_batches(config, parent, seed),
            loss=loss_of(config.fine_tuning),
            protect=config.protect,
            seed=seed,
        )
    masks.apply_(model)
    wanted = masks.total - round(sparsity * masks.total)
    return Made(Shape(model, masks, start.spec, sparsity), masks.kept == wanted)


def _fewer_units(
    config: CompressConfig, parent: Parent, path: SearchPath, start: Shape, sparsity: float, seed: int
) -> Made:
    example = parent.data.train.inputs[:2].clone()
    plan = plan_removal(
        start.model,
        1 - (1 - sparsity) / (1 - start.sparsity),  # of the units that the one before has left
        example,
        config.criterion,
        ranking=RANKINGS[str(path.distribution)],
        masks=start.masks,
        protect=config.protect,
        batches=_batches(config, parent, seed),
        loss=loss_of(config.fine_tuning),
        seed=seed,
    )
    if not plan.gone:
        raise PruningError(f"sparsity {sparsity:g}: no further unit can go, each layer keeps one")
    removed = remove_units(start.model, plan, example)
    shape = Shape(removed.model, removed.masks, start.spec.without_units(removed.removal), sparsity)
    return Made(shape, None)


def _batches(config: CompressConfig, parent: Parent, seed: int) -> list[tuple[Tensor, Tensor]]:
    size = 64 if config.fine_tuning is None else config.fine_tuning.batch_size
    return draw_batches(parent.data.train, size, config.score_batches, derive_seed(seed, "criterion"))


def _fine_tune(
    config: CompressConfig,
    parent: Parent,
    shape: Shape,
    seed: int,
    checkpoint: Path,
    on_evaluation: OnEvaluation,
) -> None:
    """Trains a candidate in place; it gets the weights of its lowest validation loss."""
    if config.fine_tuning is None:
        return
    trained = fit(
        shape.model,
        learned(parent.data, parent.model, config.distillation),
        config.fine_tuning,
        shape.masks,
        derive_seed(seed, "fine-tuning"),
        checkpoint=checkpoint,
        checkpoint_seconds=config.checkpoint_seconds,
        on_evaluation=on_evaluation,
    )
    shape.model.load_state_dict(trained.early_stop_state)
