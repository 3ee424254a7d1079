"""What you ask of a hybrid study: the lotteries whose networks it cuts, the exits, the forests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from tombola.data import DataConfig
from tombola.errors import ConfigError
from tombola.runs import limits
from tombola.runs.configs import Config, Name, each_once, validate
from tombola.studies.hybrid.exits import poolings
from tombola.studies.lottery.config import LotteryConfig

ROLES = ("cnn", "head", "lenet")
PLAIN = {"normalise": False}
"""A base brings its own normalisation."""


class HybridConfig(Config):
    """A hybrid study. `data`, `seed` and `replicates` hold for all its lotteries, whatever their own configs say.

    The lotteries are written out, or paths of their config files.
    """

    PARTS: ClassVar[tuple[str, ...]] = ROLES

    study: Literal["hybrid"] = "hybrid"
    name: Name
    data: DataConfig | None = Field(None, description="images for all; default the cnn's. The head keeps its base")
    seed: int | None = Field(None, ge=0, description="for all; default the cnn's")
    replicates: int | None = Field(None, ge=1, le=limits.REPLICATES, description="for all; default the cnn's")
    cnn: LotteryConfig = Field(description="of a convolutional network, whole: its dense network and ticket are cut")
    head: LotteryConfig | None = Field(None, description="of a dense head behind a frozen base, which is cut, too")
    lenet: LotteryConfig | None = Field(None, description="of a LeNet, to compare")
    exits: Annotated[tuple[str, ...], each_once("exit")] = Field(
        (), description="layers to leave at; default the last convolution of each block"
    )
    features: Annotated[tuple[str, ...], each_once("kind of features")] = Field(
        ("gap", "gap+max", "grid"), min_length=1, description="how images are pooled"
    )
    trees: int = Field(300, ge=1, le=10_000)
    components: PositiveInt = Field(50, description="of the baseline PCA + forest")
    gate_exit: str = Field("block3_conv3", description="the early exit that is gated, timed and compared")
    gate_tolerance: float = Field(0.5, ge=0, description="points of validation accuracy that the gate may lose")

    @field_validator("features")
    @classmethod
    def _known_features(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            try:
                poolings.get(name)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return names

    @model_validator(mode="after")
    def _only_the_head_has_a_base(self) -> HybridConfig:
        for role in ROLES:
            if (lottery := getattr(self, role)) is not None and lottery.task is not None:
                raise ValueError(f"`{role}` has a task of your own, and this study is of images: give it data")
        if self.head is not None and self.head.images.base is None:
            raise ValueError("`head` is a lottery on the features of a frozen base: its config needs data.base")
        for role in ("cnn", "lenet"):
            if (lottery := getattr(self, role)) is not None and lottery.images.base is not None:
                raise ValueError(f"`{role}` learns from images: its config must not have data.base")
        if self.data is not None and self.data.base is not None:
            raise ValueError("`data` are the images for all lotteries; the base belongs to the head's own data")
        self.lotteries()  # what does not go together is an error now
        return self

    def lotteries(self) -> dict[str, LotteryConfig]:
        """The lotteries by role, all on the same images, splits and seeds."""
        data = self.data or self.cnn.images
        shared = {
            "seed": self.cnn.seed if self.seed is None else self.seed,
            "replicates": self.cnn.replicates if self.replicates is None else self.replicates,
        }
        found: Mapping[str, LotteryConfig | None] = {role: getattr(self, role) for role in ROLES}
        lotteries = {}
        for role, config in found.items():
            if config is not None:
                own = data.model_copy(
                    update={"base": config.images.base} | ({} if config.images.base is None else PLAIN)
                )
                content = config.model_dump(exclude_unset=True) | shared | {"data": own.model_dump()}
                lotteries[role] = validate(content, LotteryConfig, role)
        return lotteries

    def skipping_bad(self) -> HybridConfig:
        """The same study without the images that cannot be read."""
        data = (self.data or self.cnn.images).model_copy(update={"skip_bad": True})
        return self.model_copy(update={"data": data})

    def identity(self) -> dict[str, Any]:
        """What changes a result: the lotteries as they are run, and the study's own keys but for the replicates."""
        own = {k: v for k, v in super().identity().items() if k not in ("data", "seed", "replicates", *ROLES)}
        return own | {role: config.identity() for role, config in self.lotteries().items()}
