"""The specification of a model: everything that is needed to build it again, and nothing guessed.

A trained object does not know how it was made; a spec, written when the model is made, does.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt, ValidationInfo, field_validator, model_validator
from torch import Tensor, nn

from tombola.errors import ConfigError, ModelError, counted
from tombola.models.initialise import initialise, initialisers
from tombola.models.removed import Removable, shrink
from tombola.models.zoo import architectures
from tombola.registry import Registry
from tombola.runs import limits
from tombola.runs.configs import Config

UNBUILT = 1 << 24
"""Numbers of a model that is built before its weights are seen to fit: 64 MB."""
MOST_REMOVED = 1000
"""Numbers that a larger network may have had for each that a removal of units has left."""


class Network(Config):
    """A network of the zoo, up to what the data bring: input shape and classes."""

    architecture: str = "lenet-300-100"
    widths: tuple[PositiveInt, ...] | None = Field(
        None,
        max_length=limits.WIDTHS,
        description="filters and units of the hidden layers; nothing for the architecture's own",
    )
    initialisation: str = "glorot-normal"
    dropout: float = Field(0.0, ge=0, lt=1, description="fraction of hidden dense units that a training step silences")

    @field_validator("architecture")
    @classmethod
    def _known_architecture(cls, name: str) -> str:
        return _known(architectures, name)

    @field_validator("widths")
    @classmethod
    def _widths_fit(cls, widths: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        """Written out or not, an architecture's own widths are one config and name one run."""
        name = info.data.get("architecture")
        if widths is None or name is None:
            return widths
        architecture = architectures.get(name)
        architecture.check_widths(name, widths)
        return None if widths == architecture.widths else widths

    @field_validator("dropout")
    @classmethod
    def _can_drop_out(cls, dropout: float, info: ValidationInfo) -> float:
        if name := info.data.get("architecture"):
            architectures.get(name).check_dropout(name, dropout)
        return dropout

    @field_validator("initialisation")
    @classmethod
    def _known_initialisation(cls, name: str) -> str:
        return _known(initialisers, name)


class Normalisation(Config):
    """Inputs in [0, 1] become (input - mean) / std before they reach the model: a number a channel, or one for all."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[Annotated[float, Field(gt=0)], ...] = (1.0,)

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _one_for_all(cls, value: Any) -> Any:
        """Specs written by earlier versions hold plain numbers."""
        return (value,) if isinstance(value, (int, float, str)) else value

    @model_validator(mode="after")
    def _one_of_each(self) -> Normalisation:
        if not len(self.mean) == len(self.std) > 0:
            raise ValueError(f"has {len(self.mean)} means and {len(self.std)} standard deviations; give one of each")
        return self


class ModelSpec(Network, Removable):
    """A model, whole: build it with `build`. Written as `spec.json` in a model folder. Its widths are never None."""

    input_shape: tuple[PositiveInt, ...] = Field(min_length=1, max_length=3)
    classes: int = Field(ge=2)
    seed: int = Field(ge=0)
    dtype: str = Field("float32", pattern="^float32$")
    normalisation: Normalisation = Normalisation()
    versions: dict[str, str] = Field(default_factory=lambda: model_versions())

    @field_validator("widths")
    @classmethod
    def _widths_fit(cls, widths: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        """A spec guesses nothing: the architecture's own widths are written out."""
        name = info.data.get("architecture")
        if name is None:
            return widths
        architecture = architectures.get(name)
        widths = architecture.widths if widths is None else widths
        architecture.check_widths(name, widths)
        return widths

    @model_validator(mode="after")
    def _normalisation_fits(self) -> ModelSpec:
        given, channels = len(self.normalisation.mean), self.input_shape[0]
        if given not in (1, channels):
            raise ValueError(f"normalisation has {given} means for inputs of {counted(channels, 'channel')}")
        return self


def build(spec: ModelSpec) -> nn.Module:
    """The model of `spec` with its initial weights: the same spec gives the same bits.

    Args:
        spec: Architecture, widths, input shape, classes, initialisation and seed.

    Returns:
        The model on the CPU, in training mode, float32.

    Raises:
        ModelError: where inputs are too small for the architecture, and where torch cannot: sizes beyond memory, a seed
            of more than 64 bits.

    Examples:
        >>> spec = ModelSpec(input_shape=(1, 28, 28), classes=10, seed=0)
        >>> sum(parameter.numel() for parameter in build(spec).parameters())
        266610
    """
    architecture = architectures.get(spec.architecture)
    architecture.check_input(spec.architecture, spec.input_shape)
    assert spec.widths is not None  # a spec's never are
    try:
        with torch.random.fork_rng(devices=[]):  # layers draw default weights; the caller's stream stays as it is
            model = architecture.make(spec.input_shape, spec.classes, spec.widths, spec.dropout)
        initialise(model, spec.initialisation, spec.seed)
        _without_removed(spec, model)
    except (RuntimeError, MemoryError, OverflowError, ValueError, TypeError) as error:
        raise _cannot_build(spec, error) from None
    return model


def without_memory(spec: ModelSpec) -> nn.Module:
    """The model of `spec` on torch's meta device: names, shapes and types, whatever memory `build` would take.

    For what is asked of sizes alone, and of a spec that was read from a file before its weights are seen to fit.
    Raises ModelError as `build` does.
    """
    architecture = architectures.get(spec.architecture)
    architecture.check_input(spec.architecture, spec.input_shape)
    assert spec.widths is not None  # a spec's never are
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):  # of layers without units
            model = architecture.make(spec.input_shape, spec.classes, spec.widths, spec.dropout)
            _without_removed(spec, model)
    except (RuntimeError, OverflowError, ValueError, TypeError) as error:
        raise _cannot_build(spec, error) from None
    return model


def _without_removed(spec: ModelSpec, model: nn.Module) -> None:
    if spec.removed is not None:
        shrink(model, spec.removed)


def refuse_larger(spec: ModelSpec, weights: Mapping[str, Tensor]) -> None:
    """ModelError where a stored spec claims other shapes, or far more, than the `weights` stored with it."""
    expected = without_memory(spec).state_dict()
    for name, tensor in expected.items():
        if name in weights and weights[name].shape != tensor.shape:
            there, claimed = tuple(weights[name].shape), tuple(tensor.shape)
            raise ModelError(f"size mismatch: {name} is {there}, the spec says {claimed}")
    claimed_all, stored = (sum(tensor.numel() for tensor in state.values()) for state in (expected, weights))
    if claimed_all > UNBUILT and claimed_all > 2 * stored:
        raise ModelError(f"the spec says {claimed_all:,} numbers, the weights are far fewer")
    refuse_larger_before(spec, stored)


def refuse_larger_before(spec: ModelSpec, stored: int) -> None:
    """ModelError where a spec claims that far more was removed than the `stored` numbers that are left."""
    if (whole := numbers_of_whole(spec)) > UNBUILT and whole > MOST_REMOVED * stored:
        raise ModelError(f"the spec says {whole:,} numbers before units were removed, the weights are far fewer")


def numbers_of_whole(spec: ModelSpec) -> int:
    """How many numbers `build` makes before it takes away the units that a spec says are removed."""
    whole = without_memory(spec.model_copy(update={"removed": None}))
    return sum(tensor.numel() for tensor in whole.state_dict().values())


def model_versions() -> dict[str, str]:
    """The versions that made a model: of Tombola, torch and Python."""
    return {"tombola": version("tombola"), "torch": version("torch"), "python": platform.python_version()}


def _cannot_build(spec: ModelSpec, error: Exception) -> ModelError:
    reason = str(error).partition("\n")[0]
    return ModelError(f"cannot build {spec.architecture} of widths {spec.widths}: {reason}")


def _known(registry: Registry, name: str) -> str:
    try:
        registry.get(name)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return name
