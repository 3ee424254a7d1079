"""Arrays that are split already: read as they are, the same split in every replicate, refused by name when unfit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tombola.data import DataConfig, load_data
from tombola.data.arrays import NAMES, write_arrays
from tombola.data.dataset import Examples
from tombola.errors import ConfigError, DataError
from tombola.runs.configs import validate


def examples(count: int, shape: tuple[int, ...] = (3,), classes: int = 4) -> Examples:
    return Examples(torch.randn(count, *shape), torch.arange(count) % classes)


@pytest.fixture
def parts() -> tuple[Examples, Examples, Examples]:
    torch.manual_seed(0)
    return examples(40), examples(8), examples(12)


@pytest.fixture
def path(tmp_path: Path, parts: tuple[Examples, Examples, Examples]) -> Path:
    write_arrays(tmp_path / "data.npz", parts)
    return tmp_path / "data.npz"


def test_parts_come_back_as_they_are_whatever_the_seed(path: Path, parts: tuple[Examples, Examples, Examples]) -> None:
    for seed in (0, 1):
        data = load_data(DataConfig(name="arrays", folder=path), seed)
        assert torch.equal(data.validation.inputs, parts[1].inputs)
        assert torch.equal(data.test.inputs, parts[2].inputs)
        assert torch.equal(data.test.targets, parts[2].targets)
        assert torch.equal(data.train.inputs.sum(1).sort().values, parts[0].inputs.sum(1).sort().values)
    assert (data.classes, data.input_shape) == (4, (3,))


def test_fewer_training_examples_touch_no_other_part(path: Path, parts: tuple[Examples, Examples, Examples]) -> None:
    data = load_data(DataConfig(name="arrays", folder=path, training=10), 0)
    assert len(data.train) == 10
    assert torch.equal(data.validation.inputs, parts[1].inputs)


def test_the_checksum_names_the_content(tmp_path: Path, path: Path, parts: tuple[Examples, Examples, Examples]) -> None:
    def checksum(of: Path) -> str:
        return load_data(DataConfig(name="arrays", folder=of), 0).checksum

    write_arrays(tmp_path / "again.npz", parts)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()
    assert checksum(tmp_path / "again.npz") == checksum(path)
    parts[2].targets[0] += 1
    write_arrays(tmp_path / "other.npz", parts)
    assert checksum(tmp_path / "other.npz") != checksum(path)


@pytest.mark.parametrize("key", ["validation", "test"])
def test_held_out_parts_are_not_asked_for_again(path: Path, key: str) -> None:
    config = validate({"name": "arrays", "folder": str(path), key: 3}, DataConfig, "data")
    with pytest.raises(DataError, match="comes with its own"):
        load_data(config, 0)


BAD = {
    "another type": ("train_inputs", np.zeros((40, 3)), "float64 of shape"),
    "no axis of numbers": ("train_inputs", np.zeros(40, np.float32), r"of shape \(40,\)"),
    "other shapes": ("test_inputs", np.zeros((12, 5), np.float32), "test_inputs are of shape"),
    "fewer targets": ("train_targets", np.zeros(39, np.int64), "40 train_inputs but 39"),
    "a negative class": ("train_targets", np.full(40, -1), "number the classes 0, 1, 2"),
    "NaN": ("validation_inputs", np.full((8, 3), np.nan, np.float32), "NaN or infinite"),
    "no integers": ("test_targets", np.zeros(12, np.float32), "wanted are integers"),
    "one class": ("train_targets", np.zeros(40, np.int64), "all training labels are the same class"),
    "none": ("validation_inputs", np.zeros((0, 3), np.float32), "validation_inputs are empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_unfit_is_named(path: Path, case: str) -> None:
    name, array, message = BAD[case]
    content = dict(np.load(path)) | {name: array}
    if case == "one class":
        content["validation_targets"] = np.zeros(8, np.int64)
    np.savez(path, **content)
    with pytest.raises(DataError, match=message):
        load_data(DataConfig(name="arrays", folder=path), 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_array_is_named(path: Path, name: str) -> None:
    content = {key: array for key, array in np.load(path).items() if key != name}
    np.savez(path, **content)
    with pytest.raises(DataError, match=f"no array {name}"):
        load_data(DataConfig(name="arrays", folder=path), 0)


def test_it_needs_a_file() -> None:
    with pytest.raises(ConfigError, match="`folder` belongs"):
        validate({"name": "arrays"}, DataConfig, "data")
