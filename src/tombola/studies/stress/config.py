"""What you ask: models, ways to prune them, and the tasks that they are then made to learn one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tombola.runs.configs import Config, Device, Replicates, each_once

TINY = "tiny"
DENSE, GRADUAL = "dense", "gradual"
"""References that nothing is removed from: tasks change at once, and gradually."""
Strategy = Literal["entropy", "entropy_low", "magnitude", "random", "gradient", "oracle"]
OF_ATTENTION = ("entropy", "entropy_low", "oracle")
"""Strategies that know heads alone."""
Remedy = Literal["none", "shrink_and_perturb", "reset_dormant"]
Level = Annotated[float, Field(gt=0, lt=1)]
MAX_PARTS = 64
"""Of lists: more models, strategies or levels than this are a mistake."""


def _some(names: tuple[object, ...]) -> tuple[object, ...]:
    if not 0 < len(names) <= MAX_PARTS:
        raise ValueError(f"name 1 to {MAX_PARTS}")
    return names


def _plain_names(models: tuple[str, ...]) -> tuple[str, ...]:
    for model in models:
        if not model or len(model) > 4096 or not model.isprintable():
            raise ValueError("a model is `tiny`, the name of one on the hub, or a folder")
    if len({label_of(model) for model in models}) < len(models):
        raise ValueError("name each model once, and no two whose names end alike")
    return models


class StressConfig(Config):
    """A stress evaluation. Every (model, strategy, level, draw, remedy, replicate) is a cell of its own."""

    study: Literal["stress"] = "stress"
    model: Annotated[tuple[str, ...], AfterValidator(_some), AfterValidator(_plain_names)] = Field(
        ("distilgpt2",), description="tiny, a name on the hub, or a folder"
    )
    strategies: Annotated[tuple[Strategy, ...], AfterValidator(_some), each_once("strategy")] = ("entropy", "random")
    levels: Annotated[tuple[Level, ...], AfterValidator(_some), each_once("level")] = Field(
        (0.1, 0.3, 0.5), description="fractions of the heads that are removed"
    )
    structure: Literal["head", "neuron"] = Field("head", description="what is removed: heads, or FFN neurons")
    equal: bool = Field(False, description="as many of every layer")
    draws: int = Field(5, ge=1, le=64, description="networks for each seed of the strategy random")
    protocol: Literal["diverse", "memory", "conflict"] = "diverse"
    tasks: Path | None = Field(None, description="a JSONL file of your own tasks, in place of the protocol's")
    cycles: int = Field(3, ge=1, le=1000, description="how often all tasks are learned, one after the other")
    epochs: int = Field(1, ge=1, le=1000, description="of a task's training examples, each time it is learned")
    prune_cycles: int = Field(1, ge=1, le=100, description="prune in so many steps, all cycles of tasks after each")
    remedies: Annotated[tuple[Remedy, ...], AfterValidator(_some), each_once("remedy")] = ("none",)
    adaptive: bool = Field(False, description="difficulty follows how well a task is learned")
    search: int | None = Field(None, ge=1, le=10_000, description="networks that a bandit may train in all")
    replicates: Replicates = Field(1, ge=1, le=1000, description="seeds: order of tasks, examples, fresh weights")
    seed: int = Field(42, ge=0, lt=2**63)
    quick: bool = Field(False, description="a smaller tiny model, fewer examples")
    learning_rate: float | None = Field(None, gt=0, description="null: 1e-3 for tiny, 5e-5 for other models")
    batch_size: int = Field(16, ge=1, le=4096)
    entropy: bool = Field(True, description="keep a journal of the entropy of every head")
    function: bool = Field(True, description="compare outputs with the unpruned model's")
    save_models: bool = Field(False, description="leave each pruned network, really smaller, in a folder")
    device: Device = "auto"

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.structure == "neuron" and (odd := [name for name in self.strategies if name in OF_ATTENTION]):
            raise ValueError(f"the strategy {odd[0]} looks at heads; for neurons there are magnitude, random, gradient")
        if self.remedies[0] != "none":
            raise ValueError("remedies begin with none, which the others are compared with")
        if self.adaptive and self.tasks is not None:
            raise ValueError("your own tasks have no levels of difficulty: leave --adaptive out, or --tasks")
        if self.search is not None and self.replicates != 1:
            raise ValueError("a search draws its own seeds: leave --seeds out")
        if self.search is not None and len(self.model) > 1:
            raise ValueError("a search is of one model")
        return self


def label_of(model: str) -> str:
    """What rows and folders call a model: the last part of its name, wherever it is read.

    Examples:
        >>> label_of("facebook/opt-125m"), label_of("../models/my gpt2/")
        ('opt-125m', 'my-gpt2')
    """
    return re.sub(r"[^A-Za-z0-9._]+", "-", Path(model).name).strip("-.") or "model"
