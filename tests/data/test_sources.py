"""The data sets themselves, and their split into training, validation and test."""

from __future__ import annotations

import hashlib
import importlib.util
import math
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from tombola.data import DataConfig, DataSet, Examples, RawData, load_data, sources
from tombola.data.dataset import split
from tombola.data.home import idx_files
from tombola.data.sources import load_raw, split_data
from tombola.errors import ConfigError, DataError
from tombola.runs.configs import validate


def _raw(count: int, test: int = 0) -> RawData:
    """Examples that carry their own number as input; labels alternate."""

    def numbered(start: int, number: int) -> Examples:
        numbers = torch.arange(start, start + number)
        return Examples(numbers.float().reshape(-1, 1, 1, 1), numbers % 2)

    return RawData("numbered", numbered(0, count), numbered(count, test) if test else None, "md5:0")


def _numbers(data: DataSet) -> list[list[int]]:
    return [part.inputs.reshape(-1).int().tolist() for part in (data.train, data.validation, data.test)]


def _targets_follow(data: DataSet) -> bool:
    parts = (data.train, data.validation, data.test)
    return all(torch.equal(part.inputs.reshape(-1).long() % 2, part.targets) for part in parts)


@given(
    count=st.integers(22, 200),
    validation=st.integers(1, 60),
    test=st.integers(1, 60),
    seed=st.integers(0),
    own=st.booleans(),
)
@settings(max_examples=150)
def test_a_split_is_disjoint_and_whole(count: int, validation: int, test: int, seed: int, own: bool) -> None:
    assume(count - validation - (0 if own else test) >= 20)  # both classes are left to train on
    raw = _raw(count, test if own else 0)
    data = split(raw, seed, validation, test)
    train, held, tested = _numbers(data)
    assert sorted(train + held + tested) == list(range(count + (test if own else 0)))
    assert (len(held), len(tested)) == (validation, test)
    assert _targets_follow(data)
    assert _numbers(split(raw, seed, validation, test)) == [train, held, tested]
    if own:
        assert tested == list(range(count, count + test))


@given(one=st.integers(0, 2**64), other=st.integers(0, 2**64))
@settings(max_examples=50)
def test_another_seed_gives_another_split(one: int, other: int) -> None:
    raw = _raw(100)
    assert (_numbers(split(raw, one, 10, 20)) == _numbers(split(raw, other, 10, 20))) == (one == other)


def test_a_split_leaves_the_global_random_stream_alone() -> None:
    before = torch.get_rng_state()
    split(_raw(100), 0, 10, 20)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("count", "validation", "test", "says"),
    [
        (10, 5, 5, "too few for 5 validation and 5 test examples"),
        (10, 5, 4, "too few"),
        (10, 100, 1, "too few"),
        (10, 0, 2, "at least one"),
        (10, 2, 0, "at least one"),
    ],
)
def test_too_few_examples_are_an_error(count: int, validation: int, test: int, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        split(_raw(count), 0, validation, test)
    assert "numbered" in str(caught.value)
    assert "\n" not in str(caught.value)


@given(count=st.integers(60, 200), training=st.integers(20, 40), seed=st.integers(0), own=st.booleans(), data=st.data())
@settings(max_examples=60)
def test_fewer_training_examples_are_the_first_of_the_split(
    count: int, training: int, seed: int, own: bool, data: st.DataObject
) -> None:
    raw = _raw(count, 15 if own else 0)
    whole = split(raw, seed, 5, 10)
    assume(len(torch.unique(whole.train.targets[:training])) == 2)
    fewer = split(raw, seed, 5, 10, training=training)
    train, *held = _numbers(whole)
    assert _numbers(fewer) == [train[:training], *held]
    assert _targets_follow(fewer)
    assert (fewer.classes, fewer.checksum) == (whole.classes, whole.checksum)
    assert _numbers(split(raw, seed, 5, 10, training=len(train))) == [train, *held]
    more = data.draw(st.integers(len(train) + 1))
    with pytest.raises(DataError, match=f"numbered: {more} training examples .* {len(train)} are left") as caught:
        split(raw, seed, 5, 10, training=more)
    assert "\n" not in str(caught.value)
    assert ("10 test examples" in str(caught.value)) != own


def test_fewer_training_examples_of_one_class_are_an_error() -> None:
    raw = _raw(100)
    alike = next(seed for seed in range(50) if len(split(raw, seed, 5, 10).train.targets[:2].unique()) == 1)
    with pytest.raises(DataError, match="same class"):
        split(raw, alike, 5, 10, training=2)


@pytest.mark.parametrize("found", [True, False])
def test_digits_are_scikit_learns_wherever_it_keeps_them(found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not found:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    images, labels = load_digits(return_X_y=True)
    data = sources.digits(Path()).training
    assert torch.equal(data.inputs, torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8))
    assert torch.equal(data.targets, torch.tensor(labels))


# Digests of the digits' three parts as they were before `training` could be chosen.
DIGITS = {
    0: "01f3ba40cd98c5b8",
    7: "cc1150638856b392",
}


@pytest.mark.parametrize("seed", DIGITS)
def test_the_split_of_a_seed_never_changes(seed: int) -> None:
    data = load_data(DataConfig(name="digits"), seed)
    digest = hashlib.sha256()
    for part in (data.train, data.validation, data.test):
        digest.update(part.inputs.numpy().tobytes() + part.targets.numpy().tobytes())
    assert digest.hexdigest()[:16] == DIGITS[seed]


def test_a_config_asks_for_training_examples() -> None:
    config = DataConfig(name="digits", training=100)
    few, all_of_them = load_data(config, seed=3), load_data(DataConfig(name="digits"), seed=3)
    assert [len(part) for part in (few.train, few.validation, few.test)] == [100, 180, 360]
    assert torch.equal(few.train.inputs, all_of_them.train.inputs[:100])
    normal = load_data(DataConfig(name="digits", training=100, normalise=True), seed=3)
    assert abs(float(normal.train.inputs.mean())) < 1e-5  # of those used, not of all
    assert config.identity() == {"name": "digits", "training": 100}
    assert DataConfig(name="digits", training=None).identity() == {"name": "digits"}
    with pytest.raises(DataError, match=r"digits: 1258 training examples are asked for, but 1257 are left beside 180"):
        load_data(DataConfig(name="digits", training=1258), seed=3)


def test_one_class_and_lost_labels_are_errors() -> None:
    inputs = torch.zeros(4, 1, 1, 1)
    with pytest.raises(DataError, match="one: all training labels are the same class"):
        RawData("one", Examples(inputs, torch.ones(4, dtype=torch.int64)), None, "")
    with pytest.raises(DataError, match="lost: 4 inputs but 3 labels"):
        RawData("lost", Examples(inputs, torch.arange(3)), None, "")


def test_digits_are_the_1797_scans() -> None:
    raw = load_raw(DataConfig(name="digits"))
    assert raw.training.inputs.shape == (1797, 1, 8, 8)
    assert (raw.classes, raw.test) == (10, None)
    assert (float(raw.training.inputs.min()), float(raw.training.inputs.max())) == (0, 1)
    data = load_data(DataConfig(name="digits"), seed=3)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [1797 - 180 - 360, 180, 360]
    assert data.validation.inputs.is_contiguous()


@pytest.mark.parametrize(("name", "validation"), [("mnist", 5_000), ("fashion-mnist", 5_000), ("npz", 6_000)])
def test_a_default_belongs_to_a_data_set_and_not_to_its_size(name: str, validation: int, tmp_path: Path) -> None:
    folder = {"folder": tmp_path} if name == "npz" else {}
    data = split_data(_raw(60_000, test=10), DataConfig(name=name, **folder), seed=0)
    assert len(data.validation) == validation


def test_mnist_is_lecuns(data_home_with_mnist: Path) -> None:
    data = load_data(DataConfig(name="mnist"), seed=0, data_dir=data_home_with_mnist)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [55_000, 5_000, 10_000]
    assert (data.input_shape, data.classes) == ((1, 28, 28), 10)
    raw = load_raw(DataConfig(name="mnist"), data_home_with_mnist)
    assert data.checksum == raw.checksum
    pixels = raw.training.inputs
    assert math.isclose(float(pixels.mean()), 0.1307, abs_tol=5e-5)  # the constants in common use
    assert math.isclose(float(pixels.std()), 0.3081, abs_tol=5e-5)
    assert torch.bincount(raw.training.targets).tolist() == [
        *(5923, 6742, 5958, 6131, 5842),
        *(5421, 5918, 6265, 5851, 5949),
    ]
    assert raw.test is not None
    assert data.test.inputs is raw.test.inputs
    assert raw.test.targets[:5].tolist() == [7, 2, 1, 0, 4]


def test_the_published_checksums_are_those_of_the_decompressed_files(data_home_with_mnist: Path) -> None:
    checksums = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }
    folder = data_home_with_mnist / "mnist"
    assert idx_files(folder, "mnist", "file:///nowhere", checksums) == folder


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"name": "mnits"}, "did you mean 'mnist'?"),
        ({"name": "idx"}, "folder"),
        ({"name": "digits", "folder": "x"}, "folder"),
        ({"name": "digits", "validation": 0}, "validation"),
        ({"name": "digits", "test": -1}, "test"),
        ({"name": "digits", "training": 1}, "training"),
        ({"name": "digits", "training": True}, "training"),
    ],
)
def test_a_config_that_cannot_be_used(content: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(content, DataConfig, "data.yaml")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
