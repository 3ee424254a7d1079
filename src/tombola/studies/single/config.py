"""What you ask: a parent to train, a child to prune from it, a grid of methods to compare."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tombola.data import DataConfig
from tombola.errors import TombolaError
from tombola.models import ModelConfig
from tombola.pruning.criteria import make_criterion
from tombola.pruning.distributions import PerLayerRates, make_distribution
from tombola.pruning.structures import make_structure
from tombola.runs import limits
from tombola.runs.configs import CheckpointSeconds, Config, Name, Replicates, each_once
from tombola.studies.single.schedule import PruneSchedule
from tombola.training import Recipe
from tombola.training.distillation import TEMPERATURE, WEIGHT
from tombola.training.evolution import Evolution
from tombola.training.frozen import refuse_augmentation


def _known_criterion(name: str) -> str:
    return _tried(make_criterion, name)


def _known_structure(name: str) -> str:
    return _tried(make_structure, name)


def _known_distribution(name: str) -> str:
    return _tried(make_distribution, name)


def _tried(make: Any, name: str) -> str:
    try:
        make(name)
    except TombolaError as error:
        raise ValueError(str(error)) from None
    return name


CriterionName = Annotated[str, AfterValidator(_known_criterion)]
StructureName = Annotated[str, AfterValidator(_known_structure)]
DistributionName = Annotated[str, AfterValidator(_known_distribution)]
Sparsity = Annotated[float, Field(gt=0, lt=1)]


class TrainConfig(Config):
    """A parent: a model of the zoo, trained; sparse from the start or on the way where `evolution` says so."""

    study: Literal["train"] = "train"
    name: Name
    seed: int = Field(0, ge=0, description="makes split, initial weights and order of the examples")
    data: DataConfig
    model: ModelConfig = ModelConfig()
    training: Recipe
    evolution: Evolution | None = None
    checkpoint_seconds: CheckpointSeconds = 10.0

    @model_validator(mode="after")
    def _features_stay(self) -> TrainConfig:
        refuse_augmentation(self.data, self.training)
        return self


class Pruning(Config):
    """How a child is pruned from its parent."""

    sparsity: Sparsity | None = Field(None, description="the fraction of units removed; n:m and rates bring their own")
    criterion: CriterionName = "magnitude"
    structure: StructureName = "weight"
    distribution: DistributionName = "global"
    schedule: PruneSchedule = PruneSchedule()
    protect: tuple[str, ...] = Field((), description="layers left alone, by name or pattern")
    min_keep: int = Field(1, ge=1, description="units that every layer keeps")
    score_batches: int = Field(16, ge=1, description="batches that criteria with need of data look at")

    @model_validator(mode="after")
    def _goes_together(self) -> Pruning:
        fixed = make_structure(self.structure).sparsity
        brings_its_own = fixed is not None or isinstance(make_distribution(self.distribution), PerLayerRates)
        if self.sparsity is None and not brings_its_own:
            raise ValueError("sparsity is missing: the fraction of units to remove, such as 0.9")
        if isinstance(make_distribution(self.distribution), PerLayerRates) and self.sparsity is not None:
            raise ValueError("the distribution `rates` takes no sparsity: leave it out")
        if fixed is not None and self.sparsity not in (None, fixed):
            raise ValueError(f"{self.structure} removes {fixed:g} of every layer's weights: leave the sparsity out")
        if self.sparsity is None and self.schedule.kind not in ("oneshot", "iterative"):
            raise ValueError(f"the schedule {self.schedule} needs a sparsity to lead to")
        if fixed is not None and self.schedule.kind != "oneshot":
            raise ValueError(f"{self.structure} fixes its sparsity and goes in one step: leave the schedule out")
        return self


class Distillation(Config):
    """How a child learns from its parent's answers beside the targets; `training.distillation` has the formula."""

    temperature: float = Field(TEMPERATURE, gt=0, allow_inf_nan=False, description="softens both answers")
    weight: float = Field(WEIGHT, gt=0, le=1, description="of the parent's answers; the targets have the rest")


class OfParentConfig(Config):
    """What is made of one parent. `data` may be left out where the parent's folder records its own."""

    study: str
    model: str = Field(description="a name of the zoo, a model folder, or package.module:function")
    weights: Path | None = Field(None, description="weights for a zoo or factory model")
    factory: str | None = Field(None, description="the function that makes the model of a folder, if it is your own")
    data: DataConfig | None = None
    seed: int = Field(0, ge=0)
    fine_tuning: Recipe | None = None
    distillation: Distillation | None = Field(None, description="fine-tuning learns from the parent as well")
    checkpoint_seconds: CheckpointSeconds = 10.0

    def identity(self) -> dict[str, Any]:
        """With the folder of the parent as it is, however its path is written: relative, absolute or through a link."""
        content = super().identity()
        with contextlib.suppress(OSError):
            if Path(self.model).is_dir():
                content["model"] = str(Path(self.model).resolve())
        return content

    @model_validator(mode="after")
    def _features_stay(self) -> Self:
        refuse_augmentation(self.data, self.fine_tuning)
        _refuse_distillation_alone(self.distillation, self.fine_tuning)
        return self


class PruneConfig(OfParentConfig):
    """A child: the parent without some of its weights."""

    study: Literal["prune"] = "prune"
    pruning: Pruning
    reestimate: int = Field(
        0, ge=0, description="training examples that batch norms take new statistics from at the end"
    )
    batch_size: int = Field(64, ge=1, description="of the batches that criteria look at")

    @model_validator(mode="after")
    def _gradual_needs_training(self) -> PruneConfig:
        if self.pruning.schedule.gradual and self.fine_tuning is None:
            raise ValueError(f"the schedule {self.pruning.schedule} prunes during the fine-tuning: give it a length")
        return self


class Removing(Config):
    """Which units go: those that the parent's masks leave without effect, with a `sparsity` by scores; or layers."""

    sparsity: float | None = Field(None, description="the fraction of the units that goes, by scores")
    layers: str | None = Field(None, description="whole layers: how many, or their names with commas between")
    criterion: CriterionName = "magnitude"
    ranking: str = Field("group", description="group: each group of coupled layers loses as much; global: all compete")
    round_to: int = Field(1, ge=1, description="what stays of a group is a multiple of this number")
    protect: tuple[str, ...] = Field((), description="layers left alone, by name or pattern")
    score_batches: int = Field(16, ge=1, description="batches that criteria with need of data look at")

    @model_validator(mode="after")
    def _goes_together(self) -> Removing:
        if self.layers is not None and self.sparsity is not None:
            raise ValueError("--layers removes whole layers: leave --sparsity out, and remove units of what is left")
        return self


class RemoveConfig(OfParentConfig):
    """A smaller model: the parent without some of its units."""

    study: Literal["remove"] = "remove"
    removal: Removing = Removing()


class CompareConfig(Config):
    """A grid of methods: criteria × structures × distributions × sparsities, on a parent per replicate."""

    study: Literal["compare"] = "compare"
    name: Name
    seed: int = Field(0, ge=0, description="makes everything; replicate i uses a seed derived from (seed, i)")
    replicates: Replicates = Field(3, ge=1, le=100)
    data: DataConfig
    model: ModelConfig = ModelConfig()
    training: Recipe = Field(description="of the parents")
    fine_tuning: Recipe | None = Field(None, description="of the children; without it they are only pruned")
    distillation: Distillation | None = Field(None, description="fine-tuning learns from the parent as well")
    criteria: Annotated[tuple[CriterionName, ...], each_once("criterion")] = Field(min_length=1)
    structures: Annotated[tuple[StructureName, ...], each_once("structure")] = Field(("weight",), min_length=1)
    distributions: Annotated[tuple[DistributionName, ...], each_once("distribution")] = Field(("global",), min_length=1)
    sparsities: Annotated[tuple[Sparsity, ...], each_once("sparsity")] = Field(min_length=1)
    protect: tuple[str, ...] = ()
    min_keep: int = Field(1, ge=1)
    score_batches: int = Field(16, ge=1)
    batch_size: int = Field(64, ge=1, description="of the batches that criteria look at")
    checkpoint_seconds: CheckpointSeconds = 10.0

    @model_validator(mode="after")
    def _comparable(self) -> CompareConfig:
        methods = math.prod(len(part) for part in (self.criteria, self.structures, self.distributions, self.sparsities))
        if methods > limits.METHODS:
            raise ValueError(f"{methods:,} methods are more than {limits.METHODS:,}; name fewer")
        for structure in self.structures:
            if make_structure(structure).sparsity is not None:
                raise ValueError(f"{structure} fixes its own sparsity and cannot be compared over `sparsities`")
        if any(distribution.startswith("rates") for distribution in self.distributions):
            raise ValueError("the distribution `rates` takes no sparsity and cannot be compared over `sparsities`")
        return self

    @model_validator(mode="after")
    def _features_stay(self) -> CompareConfig:
        refuse_augmentation(self.data, self.training)
        refuse_augmentation(self.data, self.fine_tuning)
        _refuse_distillation_alone(self.distillation, self.fine_tuning)
        return self

    def methods(self) -> list[Pruning]:
        """The grid's points, in order; a method that the toolbox refuses becomes a row that says so."""
        shared = {"protect": self.protect, "min_keep": self.min_keep, "score_batches": self.score_batches}
        return [
            Pruning(sparsity=sparsity, criterion=criterion, structure=structure, distribution=distribution, **shared)
            for structure in self.structures
            for distribution in self.distributions
            for sparsity in self.sparsities
            for criterion in self.criteria
        ]


def _refuse_distillation_alone(distillation: Distillation | None, fine_tuning: Recipe | None) -> None:
    if distillation is not None and fine_tuning is None:
        raise ValueError("distillation belongs to the fine-tuning: give that a length, or leave distillation out")
