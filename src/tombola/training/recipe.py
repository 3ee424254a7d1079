"""`Recipe`: how to train. Optimizer, rate and its schedule, batch, length, evaluation."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from tombola.data.augment import Augmentation
from tombola.runs.configs import Config, Device
from tombola.training.step import Step


class Recipe(Config):
    """How a network is trained. The learning rate is a pure function of the iteration (`rate_at`)."""

    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    learning_rate: float = Field(1.2e-3, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1, description="sgd only")
    weight_decay: float = Field(0.0, ge=0)
    batch_size: int = Field(60, ge=1)
    length: Step = Field(description="how long to train: 50000it, 3ep or 2ep50it")
    evaluate_every: Step = Field(description="how often to look at the validation set")
    patience: int | None = Field(None, ge=1, description="end after so many evaluations without a lower loss")
    schedule: Literal["constant", "step", "cosine"] = "constant"
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
    augmentation: tuple[Augmentation, ...] = Field((), description="flip (left to right), crop (shift by up to 4)")

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        for name in ("length", "evaluate_every"):
            step = getattr(self, name)
            if not (step.epochs or step.extra):
                raise ValueError(f"{name} must be at least 1it")
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"momentum belongs to sgd, not to {self.optimizer}")
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
        return self.learning_rate
