"""Frozen bases and images for them, small enough that all of them pass in a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from tombola.data import DataConfig
from tombola.models import ModelSpec, build, save_model
from tombola.models.spec import Normalisation
from tombola.runs.configs import validate
from tombola.training import base, frozen

WIDTHS = (4, 6, 8, 8, 8)
NORMALISATION = Normalisation(mean=(0.3,), std=(0.4,))


@contextmanager
def own_cache(home: Path) -> Iterator[Path]:
    """A user's cache that only this test has; returns where features are kept. Nothing of others is in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home))
        forget()
        yield home / "tombola" / "features"
    forget()


def forget() -> None:
    """As a new process would be."""
    base._opened.cache_clear()
    frozen._features.cache_clear()


def write_digits(path: Path, count: int = 120, test: int = 30, channels: int = 1, seed: int = 0) -> Path:
    """Digits as an .npz of their own; grey, or three channels alike."""
    bunch = load_digits()
    order = np.random.default_rng(seed).permutation(len(bunch.target))[: count + test]
    images = (bunch.images[order] * 15).astype(np.uint8)
    if channels == 3:
        images = np.stack([images] * 3, axis=-1)
    labels = bunch.target[order].astype(np.uint8)
    np.savez(path, x_train=images[:count], y_train=labels[:count], x_test=images[count:], y_test=labels[count:])
    return path


def data_config(images: Path, base: dict[str, Any] | None = None, **changes: Any) -> DataConfig:
    """`images` at 32×32 pixels, behind a random base unless another one is given."""
    content = {"name": "npz", "folder": str(images), "size": 32, "validation": 20}
    return validate(content | {"base": {"widths": WIDTHS} if base is None else base} | changes, DataConfig, "data")


def vgg(seed: int = 1, channels: int = 1, side: int = 32) -> tuple[ModelSpec, nn.Sequential]:
    spec = ModelSpec(
        architecture="vgg16-keras",
        widths=(*WIDTHS, 6, 5),
        initialisation="kaiming-normal",
        input_shape=(channels, side, side),
        classes=10,
        seed=seed,
        normalisation=NORMALISATION,
    )
    network = build(spec)
    assert isinstance(network, nn.Sequential)
    return spec, network


def convolutions(**options: Any) -> dict[str, Tensor]:
    return {name: t for name, t in vgg(**options)[1].state_dict().items() if name.startswith("block")}


def write_weights(path: Path, **options: Any) -> Path:
    """A file of weights by the names of `vgg16-keras`."""
    safetensors.torch.save_file(convolutions(**options), path)
    return path


def write_folder(folder: Path, **options: Any) -> Path:
    """A model folder of a `vgg16-keras`."""
    spec, network = vgg(**options)
    save_model(folder, spec, network)
    return folder


def random_images(count: int, channels: int = 1, side: int = 32) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(5))
