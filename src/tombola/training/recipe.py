"""`Recipe`: how to train. Optimizer, rate and its schedule, batch, length, evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from tombola.data.augment import Augmentation
from tombola.errors import TrainingError, one_line_by_name
from tombola.models.factory import is_factory_name, own_function
from tombola.registry import suggest
from tombola.runs.configs import Config, Device
from tombola.training.step import Step

KNOWN: dict[str, tuple[str, ...]] = {
    "optimizer": ("sgd", "adam", "adamw"),
    "schedule": ("constant", "step", "cosine"),
    "loss": (),
}
"""What a recipe may name that is nobody's own function."""
Schedule = Callable[[int, int], float]
"""(iteration, counted from 0, and how many there are) -> what the learning rate is multiplied by."""


class Recipe(Config):
    """How a network is trained. The learning rate is a pure function of the iteration (`rate_at`)."""

    optimizer: str = Field("adam", description="sgd, adam, adamw, or package.module:function of your own")
    learning_rate: float = Field(1.2e-3, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1, description="sgd only")
    weight_decay: float = Field(0.0, ge=0)
    batch_size: int = Field(60, ge=1)
    length: Step = Field(description="how long to train: 50000it, 3ep or 2ep50it")
    evaluate_every: Step = Field(description="how often to look at the validation set")
    patience: int | None = Field(None, ge=1, description="end after so many evaluations without a lower loss")
    schedule: str = Field("constant", description="constant, step, cosine, or package.module:function of your own")
    warmup: Step = Field(Step(), description="linear rise of the rate from 0 over this length")
    milestones: tuple[Step, ...] = Field((), description="step: where the rate is multiplied by `gamma`")
    gamma: float = Field(0.1, gt=0, le=1)
    engine: Literal["auto", "dense", "sparse"] = Field(
        "auto", description="how steps are computed: sparse kernels where they are faster, never, or always"
    )
    device: Device = Field("cpu", description="where to train; auto is the best that there is")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of a network's large operations; weights, optimizer and averages stay in float32"
    )
    ema: float | None = Field(
        None, gt=0, le=1, description="average the weights exponentially over about this fraction of the training"
    )
    loss: str | None = Field(
        None, description="package.module:function of your own, of logits and targets, in place of the cross-entropy"
    )
    augmentation: tuple[Augmentation, ...] = Field((), description="flip (left to right), crop (shift by up to 4)")

    @field_validator("optimizer", "schedule", "loss")
    @classmethod
    def _known_or_own(cls, name: str | None, info: ValidationInfo) -> str | None:
        known = KNOWN[str(info.field_name)]
        if name is not None and name not in known and not is_factory_name(name):
            said = f"{', '.join(known)}, or " if known else ""
            raise ValueError(f"is {said}package.module:function of your own{suggest(name, known)}")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        for name in ("length", "evaluate_every"):
            step = getattr(self, name)
            if not (step.epochs or step.extra):
                raise ValueError(f"{name} must be at least 1it")
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"momentum belongs to sgd, not to {self.optimizer}")
        if self.weight_decay and is_factory_name(self.optimizer):
            raise ValueError(f"weight_decay belongs to sgd, adam and adamw: give it to {self.optimizer}")
        if self.warmup != Step() and is_factory_name(self.schedule):
            raise ValueError(f"warmup belongs to constant, step and cosine: make it part of {self.schedule}")
        if bool(self.milestones) != (self.schedule == "step"):
            raise ValueError("`milestones` belong to `schedule: step`, which needs them")
        if len(set(self.augmentation)) < len(self.augmentation):
            raise ValueError("`augmentation` names each kind once")
        return self

    def fine_tuning(self, per_epoch: int) -> Recipe:
        """The same training at one low rate: the last of a `step` schedule, else a tenth of the learning rate.

        Fine-tuning at the final rate of the original training is the practice that Renda et al. 2020 compare
        with rewinding (arXiv 2003.02389).
        """
        last = self.rate_at(self.length.iterations(per_epoch) - 1, per_epoch) if self.milestones else None
        rate = self.learning_rate / 10 if last is None else last
        low = {"learning_rate": rate, "schedule": "constant", "milestones": (), "warmup": Step()}
        return self.model_copy(update=low)

    def constant_rate(self, per_epoch: int) -> float | None:
        """The learning rate where every iteration has the same, else None."""
        return self.learning_rate if self.schedule == "constant" and not self.warmup.iterations(per_epoch) else None

    def rate_at(self, iteration: int, per_epoch: int) -> float:
        """The learning rate of the iteration (counted from 0) that follows `iteration` finished ones.

        Cosine: rate · (1 + cos(π t / T)) / 2 over what follows the warm-up (Loshchilov & Hutter 2017,
        arXiv 1608.03983, without restarts).
        """
        warmup = self.warmup.iterations(per_epoch)
        if iteration < warmup:
            return self.learning_rate * (iteration + 1) / warmup
        if self.schedule == "step":
            passed = sum(milestone.iterations(per_epoch) <= iteration for milestone in self.milestones)
            return self.learning_rate * self.gamma**passed
        if self.schedule == "cosine":
            rest = max(1, self.length.iterations(per_epoch) - warmup)
            return self.learning_rate * (1 + math.cos(math.pi * (iteration - warmup) / rest)) / 2
        if is_factory_name(self.schedule):
            total = self.length.iterations(per_epoch)
            return self.learning_rate * factor_of(own_function(self.schedule), iteration, total)
        return self.learning_rate


def factor_of(schedule: Schedule, iteration: int, total: int) -> float:
    """What somebody's own schedule multiplies the learning rate by. TrainingError where that is no such number."""
    try:
        factor = float(schedule(iteration, total))
    except Exception as error:
        raise TrainingError(f"the schedule fails at iteration {iteration}: {one_line_by_name(error)}") from error
    if not (math.isfinite(factor) and factor >= 0):
        raise TrainingError(
            f"the schedule gives {factor} for iteration {iteration} of {total}; it has to give what the learning rate "
            "is multiplied by, a number of 0 or more"
        )
    return factor
