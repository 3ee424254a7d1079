"""Starting from a `.keras` file: a search whose W_0 are the weights of somebody's trained network."""

from __future__ import annotations

from typing import Any

from torch import nn

from tombola.data import DataSet, normalised
from tombola.data.dataset import Normalisation
from tombola.errors import ConfigError, ModelError, counted
from tombola.models import ModelConfig
from tombola.models.keras_models import read_keras
from tombola.models.tensors import content_sha256
from tombola.studies.lottery.config import LotteryConfig

OWN = ("architecture", "widths", "dropout")
"""What a file says of its network."""


def started(config: LotteryConfig) -> LotteryConfig:
    """`config` with the network of its `start`, if it has one; ConfigError where it asks for another network."""
    if config.start is None:
        return config
    held = read_keras(config.start)
    model = ModelConfig(**{key: getattr(held, key) for key in OWN}, initialisation=config.model.initialisation)
    asked = config.model.model_dump(include=set(OWN), exclude_defaults=True)  # what a written-out config has is not
    differing = {key: value for key, value in asked.items() if value != getattr(model, key)}
    if differing:
        raise ConfigError(
            f"start: {config.start} holds a {held.architecture} of widths {list(held.widths)} and dropout "
            f"{held.dropout:g}, model asks for {differing}; leave {', '.join(differing)} out"
        )
    return config.model_copy(update={"model": model})


def start_facts(config: LotteryConfig, input_shape: tuple[int, ...], classes: int) -> dict[str, Any]:
    """What a run records of its start, and must find again; ModelError where the data do not fit the network."""
    if config.start is None:
        return {}
    held = read_keras(config.start)
    if held.input_shape[0] != input_shape[0] and len(held.input_shape) == len(input_shape) == 3:
        raise ModelError(
            f"{config.start}: takes images of {counted(held.input_shape[0], 'channel')}, these have "
            f"{input_shape[0]}; set data.channels to {held.input_shape[0]}, or take other images"
        )
    if (held.input_shape, held.classes) != (input_shape, classes):
        raise ModelError(
            f"{config.start}: made for inputs {held.input_shape} and {held.classes} classes, the data have "
            f"{input_shape} and {classes}; set data.size, or use its own data"
        )
    return {"start": content_sha256(held.weights)}


def as_started(config: LotteryConfig, data: DataSet) -> DataSet:
    """`data` with the normalisation that the network of `start` was trained with."""
    if config.start is None:
        return data
    held = read_keras(config.start).normalisation
    return normalised(data, Normalisation(held.mean, held.std))


def start_line(config: LotteryConfig) -> str | None:
    """What has to be said of a search that starts from a trained network; None for any other."""
    if config.start is None:
        return None
    return (
        f"W_0 is the network of {config.start}, which was trained before. If it has seen these images, test "
        "accuracies are flattered, those of dense and ticket alike, and reinit, which has not, is no fair control."
    )


def load_start(config: LotteryConfig, model: nn.Module, recorded: str | None = None) -> None:
    """Fills `model` with the weights of `start`, if there is one; ModelError where they are not those `recorded`."""
    if config.start is None:
        return
    weights = read_keras(config.start).weights
    if recorded is not None and content_sha256(weights) != recorded:
        raise ModelError(
            f"{config.start}: was replaced while the run was at work; put it back and run the command again"
        )
    model.load_state_dict(weights)
