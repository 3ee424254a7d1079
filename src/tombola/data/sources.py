"""The data sets by name, and how a config chooses one."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import math
import multiprocessing
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator

from tombola.data.arrays import arrays, is_named_by_content
from tombola.data.base import Base
from tombola.data.cifar import cifar10, cifar10_exact
from tombola.data.dataset import DataSet, Examples, RawData, split
from tombola.data.folders import class_folders
from tombola.data.home import data_home, idx_files
from tombola.data.idx import read_idx_folder
from tombola.data.npz import npz
from tombola.data.published import plantvillage_apple, pneumoniamnist
from tombola.errors import ConfigError, DataError
from tombola.registry import Registry
from tombola.runs.atomic import storage_errors
from tombola.runs.configs import Config

Source = Callable[..., RawData]
"""Reads a data set from its folder; sources that need no file ignore the folder. Some take OPTIONS by name, too."""

data_sets: Registry[Source] = Registry("data set")

OWN_DATA = ("idx", "npz", "folder", "arrays")
DECODED = ("folder", "plantvillage-apple")
RESIZED = ("npz", "folder", "plantvillage-apple", "pneumoniamnist")
OPTIONS = {"size": RESIZED, "channels": RESIZED, "skip_bad": DECODED, "group_by": DECODED}
"""What a config says of how a data set is read, and which data sets can be read so."""
VALIDATION = {"mnist": 5_000, "fashion-mnist": 5_000}
"""Validation examples where the config names no number, of 60,000: 55,000 are left to train on, as in the paper."""
SHARED_FOLDERS = {"cifar10-exact": "cifar10"}
"""Data sets that lie in the data home's folder of another one."""


class DataConfig(Config):
    """Which data, and how many examples are held out. The split itself comes from each replicate's seed."""

    name: str
    folder: Path | None = Field(
        None, description="for `idx`, `npz`, `arrays` and `folder`: where your own data lie, for `folder` also a tar"
    )
    validation: int | None = Field(None, ge=1, description="validation examples; default a tenth, MNIST's 5,000")
    test: int | None = Field(None, ge=1, description="test examples, where the data come without a test set")
    training: int | None = Field(None, ge=2, description="use only so many training examples; default all")
    size: int | None = Field(None, ge=2, le=1024, description="resize images to size × size pixels")
    channels: Literal[1, 3] | None = Field(None, description="grey images (1) or RGB (3); default as they are")
    skip_bad: bool = Field(False, description="leave out images that cannot be read")
    group_by: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="regular expression: images in whose paths it finds the same stay in one part of the split",
    )
    normalise: bool = Field(False, description="subtract each channel's training mean, divide by its deviation")
    base: Base | None = Field(None, description="a frozen network that images pass first: its features are learned")

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            data_sets.get(name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return name

    @field_validator("group_by")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"not a regular expression ({error})") from None
        return pattern

    @model_validator(mode="after")
    def _base_normalises(self) -> DataConfig:
        if self.base is not None and self.normalise:
            raise ValueError("a base brings the normalisation of its weights: leave `normalise` out")
        return self

    @model_validator(mode="after")
    def _folder_where_needed(self) -> DataConfig:
        if (self.name in OWN_DATA) != (self.folder is not None):
            raise ValueError(f"`folder` belongs to the data sets {', '.join(OWN_DATA)}, which need it")
        for option in self.reading():
            if self.name not in OPTIONS[option]:
                raise ValueError(f"`{option}` belongs to the data sets {', '.join(OPTIONS[option])}")
        return self

    def as_named(self) -> Config:
        """A file that is named by its content may lie anywhere: with it, a run was moved and not begun anew."""
        named = super().as_named()
        if self.name != "arrays" or self.folder is None or not is_named_by_content(self.folder):
            return named
        return named.model_copy(update={"folder": Path(self.folder.name)})

    def reading(self) -> dict[str, object]:
        """How the data set is to be read: those of OPTIONS that are not left at their defaults."""
        return self.model_dump(include=set(OPTIONS), exclude_defaults=True)


def load_data(config: DataConfig, seed: int, data_dir: Path | None = None) -> DataSet:
    """The data set of a config, split by `seed`.

    Args:
        config: Which data, how many examples for validation and test, what is done to them.
        seed: Makes the split.
        data_dir: The data home; by default `$TOMBOLA_DATA`, or the user's cache.

    Returns:
        DataSet: `train`, `validation` and `test` as tensors, inputs float32 (n, channels, height, width) in [0, 1] or
        normalised, targets int64 (n,).

    Raises:
        DataError: for missing, damaged or unfit data.

    Examples:
        >>> data = load_data(DataConfig(name="digits"), seed=0)
        >>> data.input_shape, data.classes, len(data.train) + len(data.validation) + len(data.test)
        ((1, 8, 8), 10, 1797)
    """
    return split_data(load_raw(config, data_dir), config, seed)


def split_data(raw: RawData, config: DataConfig, seed: int) -> DataSet:
    """Data in the parts that `config` and `seed` give them.

    Which example goes where depends on their number, the groups and the seed, never on inputs or labels. Without
    numbers in `config`, a tenth is for validation (but for those in VALIDATION) and a fifth for test, unless there is a
    test set.

    Args:
        raw: Read by `load_raw`, and perhaps given other inputs since.
        config: How many examples are for validation and test, and what keeps groups together.
        seed: Makes the split.

    Returns:
        DataSet: the parts.

    Raises:
        DataError: where there are too few examples for them.

    Examples:
        >>> config = DataConfig(name="digits", validation=100, test=200)
        >>> len(split_data(load_raw(config), config, seed=0).train)
        1497
    """
    if config.test is not None and raw.test is not None:
        raise DataError(f"{config.name} comes with its own test set: leave `test` out of the config")
    if config.validation is not None and raw.validation:
        raise DataError(f"{config.name} comes with its own validation examples: leave `validation` out of the config")
    count = len(raw.training)
    validation = config.validation or VALIDATION.get(config.name) or math.ceil(count / 10)
    return split(raw, seed, validation, config.test or math.ceil(count / 5), config.normalise, config.training)


def split_record(config: DataConfig, seed: int, checksum: str) -> dict[str, object]:
    """What a model's history says of its data: enough to know them again and to make the same split.

    Args:
        config: Which data.
        seed: Of the split.
        checksum: Of the data before they were split.

    Returns:
        JSON for a model's history.

    Examples:
        >>> split_record(DataConfig(name="digits"), 3, "ab12")["split_seed"]
        3
    """
    chosen = config.model_dump(mode="json", exclude_defaults=True)
    return {"config": chosen, "split_seed": seed, "checksum": checksum}


def load_raw(config: DataConfig, data_dir: Path | None = None) -> RawData:
    """A data set before it is split; kept in memory, because the replicates of a process share it.

    Args:
        config: Which data.
        data_dir: As of `load_data`.

    Returns:
        RawData: the examples as they were read, and a test set of their own where they come with one.

    Raises:
        DataError: for missing, damaged or unfit data.

    Examples:
        >>> len(load_raw(DataConfig(name="digits")).training)
        1797
    """
    folder = config.folder or data_home(data_dir) / SHARED_FOLDERS.get(config.name, config.name)
    return _read(config.name, folder.resolve(), tuple(config.reading().items()))


@functools.lru_cache(maxsize=2)
def _read(name: str, folder: Path, options: tuple[tuple[str, object], ...]) -> RawData:
    with storage_errors("read", folder):
        raw = data_sets.get(name)(folder, **dict(options))
    if multiprocessing.parent_process() is None:  # workers read the same data and would repeat it
        for sentence in raw.said:
            warnings.warn(f"{folder}: {sentence}", stacklevel=2)
    return raw


@data_sets.register("digits")
def digits(folder: Path) -> RawData:
    """scikit-learn's handwritten digits: 1,797 scans of 8×8 pixels, 10 classes, part of the package."""
    table = _table_of_digits()
    pixels = np.ascontiguousarray(table[:, :-1].reshape(-1, 8, 8), dtype=np.float32)
    labels = np.ascontiguousarray(table[:, -1], dtype=np.int64)
    checksum = hashlib.md5(pixels.tobytes() + labels.tobytes(), usedforsecurity=False).hexdigest()
    inputs = torch.from_numpy(pixels).div_(16).unsqueeze(1)
    return RawData("digits", Examples(inputs, torch.from_numpy(labels)), None, f"md5:{checksum}")


def _table_of_digits() -> np.ndarray:
    """A row for each image: its pixels and its class. The import of scikit-learn, which has it, takes every process of
    a run some seconds, so that its file is read where it lies."""
    package = importlib.util.find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        if (file := Path(folder, "datasets", "data", "digits.csv.gz")).exists():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    return np.column_stack(load_digits(return_X_y=True))


@data_sets.register("mnist")
def mnist(folder: Path) -> RawData:
    """MNIST: 60,000 + 10,000 handwritten digits of 28×28 pixels (LeCun, Cortes, Burges)."""
    checksums = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }
    source = "https://storage.googleapis.com/cvdf-datasets/mnist"
    return read_idx_folder(idx_files(folder, "mnist", source, checksums), "mnist")


@data_sets.register("fashion-mnist")
def fashion_mnist(folder: Path) -> RawData:
    """Fashion-MNIST: 60,000 + 10,000 images of clothes, 28×28 (Xiao et al. 2017, arXiv 1708.07747)."""
    checksums = {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    }
    source = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
    return read_idx_folder(idx_files(folder, "fashion-mnist", source, checksums), "fashion-mnist")


data_sets.register("cifar10")(cifar10)
data_sets.register("cifar10-exact")(cifar10_exact)


@data_sets.register("idx")
def idx(folder: Path) -> RawData:
    """Any folder of four IDX files under MNIST's file names."""
    return read_idx_folder(folder, "idx")


data_sets.register("plantvillage-apple")(plantvillage_apple)
data_sets.register("pneumoniamnist")(pneumoniamnist)
data_sets.register("npz")(npz)
data_sets.register("folder")(class_folders)
data_sets.register("arrays")(arrays)
