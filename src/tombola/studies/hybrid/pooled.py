"""Features of the frozen base, pooled at its exits: of all images once, because replicates differ in the split only.

They are kept on disk beside the features that heads learn from, and every replicate takes its own examples of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tombola.data import Examples, RawData, split_data
from tombola.data.sources import load_raw
from tombola.models.exits import Exit
from tombola.studies.hybrid.config import HybridConfig
from tombola.studies.hybrid.cuts import frozen_base, images_config
from tombola.studies.hybrid.exits import features_at
from tombola.studies.hybrid.requirements import asked_exits
from tombola.studies.lottery.networks import replicate_seed
from tombola.training.base import FrozenBase
from tombola.training.feature_cache import FeatureCache
from tombola.training.frozen import Joined, features_key, on_its_device
from tombola.training.threads import one_thread

Features = dict[tuple[str, str], NDArray[np.float32]]
"""By the name of an exit and the kind of features: (n, f)."""
PARTS = ("train", "validation", "test")


def prepare_base(config: HybridConfig, data_dir: Path | None) -> None:
    """Computes what is not cached, if the study has a base; for the process that starts the others."""
    if config.head is not None:
        _of_all(config, data_dir)


def base_features(config: HybridConfig, replicate: int, data_dir: Path | None) -> dict[str, Features]:
    """A replicate's features of the base for each part of its split, as `features_at` gives them for these images."""
    plain = images_config(config)
    seed = replicate_seed(config.lotteries()["cnn"], replicate)
    split = split_data(_numbered(load_raw(plain, data_dir)), plain, seed)
    features = _of_all(config, data_dir)
    return {
        part: {key: found[getattr(split, part).inputs.numpy()] for key, found in features.items()} for part in PARTS
    }


def _numbered(raw: RawData) -> RawData:
    """The same data set with the examples' positions for images, the test set's behind the others."""
    count = len(raw.training)
    test = raw.test and Examples(torch.arange(count, count + len(raw.test)), raw.test.targets)
    return replace(raw, training=Examples(torch.arange(count), raw.training.targets), test=test)


def _of_all(config: HybridConfig, data_dir: Path | None) -> Features:
    """The features of all images, the test set's behind the others; what is not cached is computed."""
    base = frozen_base(config, data_dir)
    assert base is not None  # asked for where there is one
    raw = load_raw(images_config(config), data_dir)
    inputs, exits = Joined.of(raw), asked_exits(config, base.network)
    caches = _caches(base, raw, exits, config.features)
    for cache in caches.values():
        cache.begin()
    found: dict[tuple[str, str], list[Tensor]] = {key: [] for key in caches}
    for part in next(iter(caches.values())).parts():
        stored = {key: features for key, cache in caches.items() if (features := cache.read(part)) is not None}
        if len(stored) < len(caches):
            stored = _computed(base, exits, config.features, inputs.at(part))
            for key, cache in caches.items():
                cache.write(part, stored[key])
        for key, features in stored.items():
            found[key].append(features)
    return {key: torch.cat(parts).numpy() for key, parts in found.items()}


def _caches(
    base: FrozenBase, raw: RawData, exits: Sequence[Exit], kinds: Sequence[str]
) -> dict[tuple[str, str], FeatureCache]:
    key, count = features_key(base, raw), len(Joined.of(raw))
    example = _computed(base, exits, kinds, raw.training.inputs[:1])
    return {
        place: FeatureCache(hashlib.sha256("\n".join((key, *place)).encode()).hexdigest(), count, features.shape[1:])
        for place, features in example.items()
    }


def _computed(
    base: FrozenBase, exits: Sequence[Exit], kinds: Sequence[str], images: Tensor
) -> dict[tuple[str, str], Tensor]:
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (base.normalisation.mean, base.normalisation.std))
    with one_thread(), on_its_device(base):
        features = features_at(base.network, exits, kinds, images.sub(mean).div_(std))
    return {key: torch.from_numpy(found) for key, found in features.items()}
