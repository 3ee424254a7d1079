"""What you ask of a lottery study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tombola.data import DataConfig
from tombola.errors import ConfigError
from tombola.models import ModelConfig
from tombola.models.factory import PATTERN
from tombola.pruning import criteria, distributions, schedules, structures
from tombola.registry import Registry, suggest
from tombola.runs import limits
from tombola.runs.configs import CheckpointSeconds, Config, Name, Replicates, each_once
from tombola.studies.lottery.controls import HOST, controls
from tombola.studies.lottery.early_bird import EarlyBirdConfig
from tombola.studies.lottery.rewind import Rewind
from tombola.training import Recipe
from tombola.training.frozen import refuse_augmentation

Density = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]


class PruningConfig(Config):
    """What each round removes. Rounds come in one of three forms:

    * `rate`: every round removes this fraction of the survivors, until `target_density` is reached. With the
      distribution `rates` it holds per layer, and `layer_rates` overrides it by layer name.
    * `densities`: the fraction of weights kept after each round.
    * `schedule` and `rounds`: a named schedule from the dense network to `target_density`.
    """

    criterion: str = "magnitude"
    structure: str = "weight"
    distribution: str = "global"
    rate: Rate | None = None
    layer_rates: dict[str, Rate] = Field(default_factory=dict)
    target_density: Density | None = None
    densities: tuple[Density, ...] = ()
    schedule: str | None = None
    rounds: int | None = Field(None, ge=1, le=1000)
    min_keep: int = Field(1, ge=1)
    score_batches: int = Field(
        16, ge=1, le=10_000, description="training batches that a criterion sees, if it sees any; drawn anew each round"
    )

    @field_validator("criterion", "structure", "distribution", "schedule")
    @classmethod
    def _registered(cls, name: str | None, info: Any) -> str | None:
        registries: dict[str, Registry[Any]] = {
            "criterion": criteria,
            "structure": structures,
            "distribution": distributions,
            "schedule": schedules,
        }
        try:
            if name is not None:
                registries[info.field_name].get(name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return name

    @model_validator(mode="after")
    def _of_single_weights(self) -> PruningConfig:
        """The plan of a study counts weights."""
        if self.structure != "weight":
            raise ValueError(
                f"a lottery study prunes single weights; for {self.structure} use tombola prune or compare"
            )
        if criteria.get(self.criterion).outputs_only:
            raise ValueError(
                f"the criterion {self.criterion} scores whole outputs, and a lottery study prunes single weights; use "
                "tombola prune or compare"
            )
        return self

    @model_validator(mode="after")
    def _one_form_of_rounds(self) -> PruningConfig:
        forms = [self.rate is not None, bool(self.densities), self.schedule is not None]
        if sum(forms) != 1:
            raise ValueError(
                "give the rounds in one form: `rate` with `target_density`, `densities`, or `schedule` with `rounds` "
                "and `target_density`; set the others to null (the distribution `rates` goes with `rate` only)"
            )
        if bool(self.densities) == (self.target_density is not None):
            raise ValueError("`target_density` belongs to `rate` and to `schedule`, which need it")
        if (self.schedule is None) != (self.rounds is None):
            raise ValueError("`rounds` belongs to `schedule`, which needs it")
        if self.distribution == "rates" and self.rate is None:
            raise ValueError("the distribution `rates` needs `rate`")
        if self.layer_rates and self.distribution != "rates":
            raise ValueError("`layer_rates` belong to the distribution `rates`")
        if any(b >= a for a, b in zip((1.0, *self.densities), self.densities, strict=False)):
            raise ValueError("`densities` must fall from below 1, each smaller than the one before")
        if self.target_density == 1:
            raise ValueError("`target_density` must be below 1: at 1 there is nothing to prune")
        return self


class TaskConfig(Config):
    """A task of one's own: what a function gives, or what the program that calls `find_ticket` holds."""

    factory: str | None = Field(
        None, pattern=f"^{PATTERN}$", description="your own function that makes the task, as package.module:function"
    )
    held: str | None = Field(
        None, min_length=1, max_length=100, description="the name of a Task that a Python program gave find_ticket"
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> TaskConfig:
        if (self.factory is None) == (self.held is None):
            raise ValueError("name the function that makes the task: `factory: package.module:function`")
        return self

    @property
    def title(self) -> str:
        return self.factory or str(self.held)


class LotteryConfig(Config):
    """A lottery study, whole."""

    study: Literal["lottery"] = "lottery"
    name: Name
    seed: int = Field(0, ge=0, description="makes everything; replicate i uses a seed derived from (seed, i)")
    replicates: Replicates = Field(
        5, ge=1, le=limits.REPLICATES, description="whole experiments; more can be added to a run later"
    )
    data: DataConfig | None = None
    task: TaskConfig | None = Field(None, description="what is learned, of your own, in place of the classes of `data`")
    model: ModelConfig = ModelConfig()
    start: Path | None = Field(None, description="a .keras file whose network is pruned: it brings model and W_0")
    training: Recipe
    pruning: PruningConfig
    rewind: tuple[str, ...] = Field(("init",), min_length=1, description="init, step:500it, lr, finetune; or a list")
    early_bird: EarlyBirdConfig | None = None
    controls: Annotated[tuple[str, ...], each_once("control")] = Field(
        ("random", "reinit"), description="see `tombola list controls`"
    )
    # It changes no row but names the run: it is to be chosen before the result is seen.
    tolerance: float = Field(
        1.0,
        gt=0,
        description="points of accuracy (or units of the task's measure) that a ticket may lose and still match",
    )
    checkpoint_seconds: CheckpointSeconds = 10.0

    @field_validator("rewind", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("rewind")
    @classmethod
    def _known_modes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        modes = tuple(str(Rewind.parse(name)) for name in names)
        if len(set(modes)) != len(modes):
            raise ValueError("name each mode of rewinding once")
        return modes

    @model_validator(mode="after")
    def _early_birds_of_rewound_networks(self) -> LotteryConfig:
        if self.early_bird and any(mode.keeps_weights for mode in self.rewinds):
            raise ValueError("`early_bird` needs modes that rewind: lr and finetune go on from a whole training")
        return self

    @model_validator(mode="after")
    def _data_or_a_task(self) -> LotteryConfig:
        if (self.data is None) == (self.task is None):
            raise ValueError("give `data`, or a `task` of your own; one of the two")
        if self.task is not None and (self.model.factory is None or self.start is not None):
            raise ValueError(
                "a task of your own is learned by a network of your own: give the function that makes it (in a config "
                "`model.factory`), and no `start`"
            )
        return self

    @model_validator(mode="after")
    def _start_is_whole(self) -> LotteryConfig:
        if self.start is not None and self.data is not None and (self.data.base is not None or self.data.normalise):
            raise ValueError("`start` is a whole network with its own normalisation: leave data.base and normalise out")
        return self

    @model_validator(mode="after")
    def _features_stay(self) -> LotteryConfig:
        refuse_augmentation(self.data, self.training)
        return self

    @property
    def images(self) -> DataConfig:
        """The data of a study that has no task of its own."""
        assert self.data is not None, "asked of a study of a task"
        return self.data

    @property
    def subject(self) -> str:
        """What pages call that which is learned."""
        return self.images.name if self.task is None else self.task.title

    @property
    def rewinds(self) -> tuple[Rewind, ...]:
        """The modes of rewinding; the first gives the run's ticket."""
        return tuple(Rewind.parse(name) for name in self.rewind)

    @field_validator("controls")
    @classmethod
    def _known_controls(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in controls:
                raise ValueError(f"unknown control {name!r}{suggest(name, controls)}")
        return names

    @property
    def dense_branches(self) -> tuple[str, ...]:
        """What is trained in round 0: the dense network, and a second one where a control needs it."""
        return ("dense", HOST) if any(controls.get(name).needs_host for name in self.controls) else ("dense",)
