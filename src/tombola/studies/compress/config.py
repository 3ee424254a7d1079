"""What you ask: a model, what it is to be at most, and the accuracy that may be lost for it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tombola.errors import ConfigError
from tombola.runs.configs import each_once
from tombola.studies.compress.target import Target
from tombola.studies.single.config import CriterionName, OfParentConfig

Structure = Literal["dense", "weight", "unit"]
Spread = Literal["global", "uniform"]


def _is_target(text: str) -> str:
    try:
        Target.parse(text)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return text


class CompressConfig(OfParentConfig):
    """A search from one parent."""

    study: Literal["compress"] = "compress"
    target: Annotated[str, AfterValidator(_is_target)] = Field(description="such as params=0.2 or latency=2ms")
    max_drop: float = Field(0.01, ge=0, lt=1, description="the accuracy that may be lost on validation, a fraction")
    structures: Annotated[tuple[Structure, ...], each_once("structure")] = Field(
        ("dense", "weight", "unit"),
        min_length=1,
        description="the model as it is; single weights gone, for sparse kernels; whole units gone, for any engine",
    )
    distributions: Annotated[tuple[Spread, ...], each_once("distribution")] = Field(
        ("global", "uniform"), min_length=1, description="over the layers: all compete, or each loses as much"
    )
    criterion: CriterionName = "magnitude"
    refinements: int = Field(
        2,
        ge=0,
        le=10,
        description="sparsities tried between the last that loses little enough and the first that does not",
    )
    protect: tuple[str, ...] = Field((), description="layers left alone, by name or pattern")
    score_batches: int = Field(16, ge=1, description="batches that criteria with need of data look at")
    batch: int = Field(1, ge=1, le=4096, description="examples in a call whose latency and memory are measured")

    @property
    def wanted(self) -> Target:
        return Target.parse(self.target)
