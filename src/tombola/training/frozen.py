"""Examples as a network learns from them: a data set's own, or the features that a frozen base makes of them.

Features are computed once and kept on disk, keyed by all that makes them: the base's weights, layers and normalisation,
and the data. Rounds, replicates and other studies share them. They are those of images as they are: nothing can be
augmented behind a base.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from tombola.data import DataConfig, DataSet, Examples, RawData, split_data
from tombola.data.sources import load_raw
from tombola.errors import DataError
from tombola.training.base import RANDOM, FrozenBase, open_base
from tombola.training.device import device_of, placed, said
from tombola.training.feature_cache import FeatureCache
from tombola.training.recipe import Recipe
from tombola.training.threads import one_thread

BATCH = 32
"""Images that pass a base at a time."""
TIMED = 4
"""Images whose time says what all will take."""

SEEN = "The base was trained on these very images, test images among them: test accuracies are flattered."

OnFeatures = Callable[[int, int], None]
"""Told of how many examples the features are there, and of how many they are wanted."""


def load_examples(config: DataConfig, seed: int, data_dir: Path | None = None) -> DataSet:
    """The examples of `config` split by `seed`: images, or features of its base. The split is the same for both."""
    return split_data(load_raw_examples(config, data_dir), config, seed)


def load_recorded(config: DataConfig, seed: int, data_dir: Path | None, checksum: str | None) -> DataSet:
    """As `load_examples`; DataError where they are not those of the `checksum` that the run has recorded.

    For whoever reads data again that a run has looked at before: files may have been replaced meanwhile.
    """
    data = load_examples(config, seed, data_dir)
    if checksum is not None and data.checksum != checksum:
        raise DataError(
            f"the data {data.name} (or the base before them) were replaced while the run was at work: recorded "
            f"{checksum}, read {data.checksum}; put them back and run the command again"
        )
    return data


def load_raw_examples(config: DataConfig, data_dir: Path | None = None) -> RawData:
    """The examples of `config` before they are split, features as they are cached, or computed where they are not."""
    raw, base = load_raw(config, data_dir), base_of(config, data_dir)
    if base is None:
        return raw
    key = features_key(base, raw)
    return replace(_with(raw, _features(_Wanted(key, base, raw))), checksum=f"sha256:{key}")


def prepare_examples(config: DataConfig, data_dir: Path | None, on_features: OnFeatures) -> None:
    """Computes what is not cached of the features of `config`, if it has a base, and says how far it is.

    Warns of a base that has no weights but random ones. For the process that a person watches, before any other.
    """
    base = base_of(config, data_dir)
    if base is None:
        return
    _warn_of_random_weights(base)
    if has_seen(base, config, data_dir):
        warnings.warn(SEEN, stacklevel=2)
    _compute(base, load_raw(config, data_dir), on_features)


def foreseen_examples(config: DataConfig, seed: int, data_dir: Path | None = None) -> tuple[DataSet, float]:
    """Examples of the shape that `load_examples` will give, and the seconds until it can; nothing is written.

    Where features are not cached, random numbers stand for them, and a few images that pass the base are timed; no
    weights are fetched for that.
    """
    raw, base = load_raw(config, data_dir), base_of(config, data_dir, fetch=False)
    if base is not None:
        _warn_of_random_weights(base)
        inputs = Joined.of(raw)
        if missing := FeatureCache(features_key(base, raw), len(inputs), base.output_shape).missing:
            began = time.perf_counter()
            with one_thread(), torch.no_grad(), on_its_device(base):
                _pass(base, inputs.at(slice(0, TIMED)))
            seconds = (time.perf_counter() - began) * missing / min(TIMED, len(inputs))
            return split_data(_with(raw, torch.rand(len(inputs), *base.output_shape)), config, seed), seconds
    return load_examples(config, seed, data_dir), 0.0


def base_of(config: DataConfig, data_dir: Path | None = None, fetch: bool = True) -> FrozenBase | None:
    """The frozen base that the examples of `config` pass, if any; `fetch` as in `open_base`."""
    if config.base is None:
        return None
    return open_base(config.base, tuple(load_raw(config, data_dir).training.inputs.shape[1:]), fetch)


def has_seen(base: FrozenBase, config: DataConfig, data_dir: Path | None = None) -> bool:
    """Whether the base was trained on the images of `config`, among which are those of any test part."""
    return base.trained_on is not None and base.trained_on == load_raw(config, data_dir).checksum


def refuse_augmentation(config: DataConfig | None, recipe: Recipe | None) -> None:
    """ValueError where features that are computed once would have to change from batch to batch."""
    if config is not None and config.base is not None and recipe is not None and recipe.augmentation:
        raise ValueError("the features of a frozen base are computed once: leave `augmentation` out")


def _warn_of_random_weights(base: FrozenBase) -> None:
    if base.source == RANDOM:
        warnings.warn(
            "the base has NO pretrained weights: its features are those of a random network; name weights with "
            "data.base.weights",
            stacklevel=3,
        )


@dataclass(frozen=True)
class _Wanted:
    """Features that are asked for: the same ones wherever the key is the same, whatever groups the data have."""

    key: str
    base: FrozenBase = field(compare=False)
    raw: RawData = field(compare=False)


@functools.lru_cache(maxsize=2)
def _features(wanted: _Wanted) -> Tensor:
    """Kept in memory, because the replicates of a process share them."""
    return _compute(wanted.base, wanted.raw, lambda done, total: None)


def _with(raw: RawData, features: Tensor) -> RawData:
    """`raw` with features for its images, the test set's behind the others'."""
    count = len(raw.training)
    test = None if raw.test is None else Examples(features[count:], raw.test.targets)
    return replace(raw, training=Examples(features[:count], raw.training.targets), test=test)


def _compute(base: FrozenBase, raw: RawData, on_features: OnFeatures) -> Tensor:
    """The features (n, *output_shape) of all examples, the test set's behind the others'; on one thread."""
    inputs = Joined.of(raw)
    cache = FeatureCache(features_key(base, raw), len(inputs), base.output_shape)
    cache.begin()
    features = torch.empty(len(inputs), *base.output_shape)
    for part in cache.parts():
        found = cache.read(part)
        if found is None:
            found = _of_part(base, inputs, part, on_features)
            cache.write(part, found)
        features[part] = found
    return features


def _of_part(base: FrozenBase, inputs: Joined, part: slice, on_features: OnFeatures) -> Tensor:
    done, batches = part.start, []
    with one_thread(), torch.no_grad(), on_its_device(base):
        for images in inputs.at(part).split(BATCH):
            batches.append(_pass(base, images))
            done += len(images)
            on_features(done, len(inputs))
    return torch.cat(batches)


def _pass(base: FrozenBase, images: Tensor) -> Tensor:
    """One batch through the base, wide channels last: a quarter faster for large convolutions. Back on the CPU."""
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (base.normalisation.mean, base.normalisation.std))
    device = device_of(base.network)
    inputs = images.sub(mean).div_(std).contiguous(memory_format=torch.channels_last)
    features: Tensor = base.network(inputs.to(device)).contiguous()
    return features.cpu()


@contextlib.contextmanager
def on_its_device(base: FrozenBase) -> Iterator[None]:
    """Within the block the base's network is on its device, and computes the same bits there every time."""
    with placed(base.network, base.device.type):
        yield


class Joined:
    """Several tensors as if they were one behind the other, without a copy of them all."""

    def __init__(self, parts: list[Tensor]) -> None:
        self.parts = parts

    @classmethod
    def of(cls, raw: RawData) -> Joined:
        """All images, the test set's behind the others'."""
        return cls([raw.training.inputs] + ([raw.test.inputs] if raw.test is not None else []))

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def at(self, wanted: slice) -> Tensor:
        chosen, first = [], 0
        for part in self.parts:
            chosen.append(part[max(wanted.start - first, 0) : max(wanted.stop - first, 0)])
            first += len(part)
        return torch.cat(chosen)


def features_key(base: FrozenBase, raw: RawData) -> str:
    """Equal exactly for features that are equal to the bit."""
    parts = [base.sha256, str(base.network), str(base.normalisation), raw.checksum, version("torch")]
    if base.device.type != "cpu":
        parts.append(said(base.device))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
