"""The specification of a model: everything that is needed to build it again, and nothing guessed.

A trained object does not know how it was made; a spec, written when the model is made, does.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version

import torch
from pydantic import Field, PositiveInt, field_validator
from torch import nn

from tombola.errors import ConfigError, ModelError
from tombola.models.initialise import initialise, initialisers
from tombola.models.lenet import lenet_300_100
from tombola.registry import Registry
from tombola.runs.configs import Config

Architecture = Callable[..., nn.Module]
"""(input_shape, classes, widths) -> module with uninitialised weights."""

architectures: Registry[Architecture] = Registry("architecture")
architectures.register("lenet-300-100")(lenet_300_100)


class ModelConfig(Config):
    """What a person chooses of a model; the data add input shape and classes."""

    architecture: str = "lenet-300-100"
    widths: tuple[PositiveInt, ...] = Field((300, 100), min_length=1, description="units of the hidden layers")
    initialisation: str = "glorot-normal"

    @field_validator("architecture")
    @classmethod
    def _known_architecture(cls, name: str) -> str:
        return _known(architectures, name)

    @field_validator("initialisation")
    @classmethod
    def _known_initialisation(cls, name: str) -> str:
        return _known(initialisers, name)


class Normalisation(Config):
    """Inputs in [0, 1] become (input - mean) / std before they reach the model."""

    mean: float = 0.0
    std: float = Field(1.0, gt=0)


class ModelSpec(ModelConfig):
    """A model, whole: build it with `build`. Written as `spec.json` in a model folder."""

    input_shape: tuple[PositiveInt, ...] = Field(min_length=1)
    classes: int = Field(ge=2)
    seed: int = Field(ge=0)
    dtype: str = Field("float32", pattern="^float32$")
    normalisation: Normalisation = Normalisation()
    versions: dict[str, str] = Field(default_factory=lambda: model_versions())


def build(spec: ModelSpec) -> nn.Module:
    """The model of `spec` with its initial weights: the same spec gives the same bits.

    Raises ModelError where torch cannot: sizes beyond memory, a seed of more than 64 bits.
    """
    make = architectures.get(spec.architecture)
    try:
        with torch.random.fork_rng(devices=[]):  # layers draw default weights; the caller's stream stays as it is
            model = make(spec.input_shape, spec.classes, spec.widths)
        initialise(model, spec.initialisation, spec.seed)
    except (RuntimeError, MemoryError, OverflowError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"cannot build {spec.architecture} of widths {spec.widths}: {reason}") from None
    return model


def model_versions() -> dict[str, str]:
    """The versions that made a model: of Tombola, torch and Python."""
    return {"tombola": version("tombola"), "torch": version("torch"), "python": platform.python_version()}


def _known(registry: Registry, name: str) -> str:
    try:
        registry.get(name)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return name
