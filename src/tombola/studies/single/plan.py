"""What making one model will train, and how long it takes: estimated before it runs, nothing is written."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from torch import nn

from tombola.data import DataSet
from tombola.pruning import Masks
from tombola.reports.terminal import say
from tombola.studies.base.numbers import counted, duration
from tombola.studies.base.output import Numbers
from tombola.studies.base.timing import recipe_seconds, sample_seconds
from tombola.training import Recipe
from tombola.training.batches import iterations_per_epoch


@dataclass(frozen=True)
class ModelPlan:
    """So many trainings of so many iterations each at most, and the seconds of all, counted as dense ones."""

    thing: str
    trainings: int
    iterations: int
    seconds: float

    @property
    def line(self) -> str:
        if not self.trainings:
            return f"{self.thing}, without a training"
        trainings = counted(self.trainings, "training")
        return f"{self.thing}: {trainings} of at most {self.iterations:,} iterations, about {duration(self.seconds)}"

    @property
    def numbers(self) -> Numbers:
        said = {"trainings": self.trainings, "iterations": self.iterations, "seconds": self.seconds}
        return Numbers([said], None, {"seconds": "s"})

    def show(self, console: Console) -> None:
        say(console, self.line)


def plan_model(
    thing: str, model: nn.Module, masks: Masks, data: DataSet, recipe: Recipe | None, trainings: int
) -> ModelPlan:
    """The plan of a `thing` that takes so many trainings of `model` by `recipe`; without one it takes none."""
    if recipe is None:
        return ModelPlan(thing, 0, 0, 0.0)
    iterations = recipe.length.iterations(iterations_per_epoch(len(data.train), recipe.batch_size))
    seconds = recipe_seconds(model, data, recipe, masks, sample_seconds(quick=False))
    return ModelPlan(thing, trainings, iterations, trainings * seconds)
