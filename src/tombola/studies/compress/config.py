"""What you ask: a model, what it is to be at most, and the accuracy that may be lost for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from tombola.data import DataConfig
from tombola.errors import ConfigError
from tombola.runs.configs import CheckpointSeconds, Config, each_once
from tombola.studies.compress.target import Target
from tombola.studies.single.config import (
    CriterionName,
    Distillation,
    refuse_distillation_alone,
    with_whole_path,
)
from tombola.training import Recipe
from tombola.training.frozen import refuse_augmentation

Structure = Literal["weight", "unit"]
Spread = Literal["global", "uniform"]


def _is_target(text: str) -> str:
    try:
        Target.parse(text)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return text


class CompressConfig(Config):
    """A search from one parent. `data` may be left out where the parent's folder records its own."""

    study: Literal["compress"] = "compress"
    model: str = Field(description="a name of the zoo, a model folder, or package.module:function")
    weights: Path | None = Field(None, description="weights for a zoo or factory model")
    factory: str | None = Field(None, description="the function that makes the model of a folder, if it is your own")
    data: DataConfig | None = None
    seed: int = Field(0, ge=0)
    target: Annotated[str, AfterValidator(_is_target)] = Field(description="such as params=0.2 or latency=2ms")
    max_drop: float = Field(0.01, ge=0, lt=1, description="the accuracy that may be lost on validation, a fraction")
    structures: Annotated[tuple[Structure, ...], each_once("structure")] = Field(
        ("weight", "unit"), min_length=1, description="single weights, for sparse kernels; whole units, for any engine"
    )
    distributions: Annotated[tuple[Spread, ...], each_once("distribution")] = Field(
        ("global", "uniform"), min_length=1, description="over the layers: all compete, or each loses as much"
    )
    criterion: CriterionName = "magnitude"
    fine_tuning: Recipe | None = Field(description="of every candidate, from the one before it")
    distillation: Distillation | None = Field(None, description="fine-tuning learns from the parent as well")
    refinements: int = Field(
        2,
        ge=0,
        le=10,
        description="sparsities tried between the last that loses little enough and the first that does not",
    )
    protect: tuple[str, ...] = Field((), description="layers left alone, by name or pattern")
    score_batches: int = Field(16, ge=1, description="batches that criteria with need of data look at")
    batch: int = Field(1, ge=1, le=4096, description="examples in a call whose latency and memory are measured")
    checkpoint_seconds: CheckpointSeconds = 10.0

    @property
    def wanted(self) -> Target:
        return Target.parse(self.target)

    def identity(self) -> dict[str, Any]:
        """With the folder of the parent as it is, however its path is written."""
        return with_whole_path(super().identity())

    @model_validator(mode="after")
    def _goes_together(self) -> CompressConfig:
        refuse_augmentation(self.data, self.fine_tuning)
        refuse_distillation_alone(self.distillation, self.fine_tuning)
        return self
