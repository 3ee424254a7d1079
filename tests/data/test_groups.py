"""Groups: images of one leaf or patient are on one side of the split, whatever the seed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from tombola.data import DataConfig, DataSet, Examples, RawData, load_data, load_raw, patient, split_data
from tombola.data.dataset import split
from tombola.errors import ConfigError, DataError
from tombola.runs.configs import validate


def _raw(groups: list[int] | None, count: int = 0, test: int = 0) -> RawData:
    """Examples that carry their own number as input; labels alternate."""
    count = len(groups) if groups is not None else count

    def numbered(start: int, number: int) -> Examples:
        numbers = torch.arange(start, start + number)
        return Examples(numbers.float().reshape(-1, 1, 1, 1), numbers % 2)

    own = numbered(count, test) if test else None
    return RawData("grouped", numbered(0, count), own, "md5:0", None if groups is None else torch.tensor(groups))


def _numbers(data: DataSet) -> list[list[int]]:
    return [part.inputs.reshape(-1).int().tolist() for part in (data.train, data.validation, data.test)]


@given(
    groups=st.lists(st.integers(-3, 25), min_size=40, max_size=120),
    validation=st.integers(1, 12),
    test=st.integers(1, 12),
    seed=st.integers(0),
    own=st.booleans(),
)
@settings(max_examples=150)
def test_groups_never_part_ways(groups: list[int], validation: int, test: int, seed: int, own: bool) -> None:
    raw = _raw(groups, test=5 if own else 0)
    try:
        data = split(raw, seed, validation, test)
    except DataError:  # which must be so is another test
        assume(False)
    train, held, tested = _numbers(data)
    count = len(groups)
    assert sorted(train + held + tested) == list(range(count + (5 if own else 0)))
    parts = [{groups[number] for number in part if number < count} for part in (train, held, tested)]
    assert sum(len(part) for part in parts) == len(set(groups))
    # Whole groups until there are enough, and no group more than that.
    for part, asked in ((held, validation), *(() if own else ((tested, test),))):
        assert len(part) >= asked
        assert any(len(part) - sum(groups[n] == group for n in part) < asked for group in {groups[n] for n in part})
    if own:
        assert tested == list(range(count, count + 5))
    assert _numbers(split(raw, seed, validation, test)) == [train, held, tested]
    training = max(2, len(train) // 2)
    if len(torch.unique(data.train.targets[:training])) == 2:
        assert _numbers(split(raw, seed, validation, test, training=training)) == [train[:training], held, tested]


def test_groups_of_one_give_exactly_the_numbers_asked_for() -> None:
    data = split(_raw(list(range(100))), 3, 10, 20)
    assert [len(part) for part in _numbers(data)] == [70, 10, 20]


def test_each_group_is_as_likely_to_be_held_out_whatever_its_size() -> None:
    """Nine groups of 1 and one of 31: each is for validation in a tenth of the seeds."""
    raw = _raw([0] * 31 + list(range(1, 10)), test=2)
    large = sum(0 in _numbers(split(raw, seed, 1, 1))[1] for seed in range(300))
    assert 15 < large < 47  # 30, with a deviation of 5.2


def test_the_first_training_examples_are_of_many_groups() -> None:
    groups = [number // 20 for number in range(400)]
    train = _numbers(split(_raw(groups), 0, 20, 40))[0]
    assert len({groups[number] for number in train[:40]}) > 10


def test_the_seed_and_the_groups_alone_decide() -> None:
    groups = [number // 5 for number in range(100)]
    splits = {str(_numbers(split(_raw(groups), seed, 10, 20))) for seed in range(20)}
    assert len(splits) == 20
    raw = _raw(groups)
    other = RawData(raw.name, Examples(torch.rand(100, 7), raw.training.targets), None, "", raw.groups)
    assert split(raw, 0, 10, 20).train.targets.tolist() == split(other, 0, 10, 20).train.targets.tolist()


@pytest.mark.parametrize(
    ("groups", "validation", "test"),
    [([0] * 50, 5, 10), ([0, 1] * 25, 5, 10), ([0, 1] * 24 + [2, 2], 5, 10), ([0] * 24 + [1] * 24 + [2], 1, 1)],
)
def test_too_few_or_too_large_groups(groups: list[int], validation: int, test: int) -> None:
    messages = []
    for seed in range(20):
        try:
            data = split(_raw(groups), seed, validation, test)
            assert min(len(data.train) - 1, len(data.validation), len(data.test)) >= 1
        except DataError as error:
            messages.append(str(error))
    wanted = f"grouped: {len(set(groups))} groups, the largest of {groups.count(groups[0])} examples"
    assert messages
    assert all(message.startswith(wanted) and "\n" not in message for message in messages)


def test_groups_must_be_one_per_training_example() -> None:
    raw = _raw(None, 20)
    with pytest.raises(DataError, match=r"grouped: 20 examples but groups of \(3,\)"):
        RawData(raw.name, raw.training, None, "", torch.arange(3))


@pytest.fixture
def leaves(tmp_path: Path) -> Path:
    """Ten leaves of each of two classes, three photographs each."""
    for label, name in enumerate(("scab", "well")):
        for number in range(30):
            path = tmp_path / "leaves" / name / f"leaf{number // 3:02d}-{number % 3}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), 100 * label + number).save(path)
    return tmp_path / "leaves"


def test_a_pattern_in_the_path_makes_groups(leaves: Path) -> None:
    def groups(pattern: str) -> list[int]:
        raw = load_raw(DataConfig(name="folder", folder=leaves, group_by=pattern))
        assert raw.groups is not None
        assert raw.groups.dtype == torch.int64
        return raw.groups.tolist()

    assert groups(r"leaf\d+") == [number // 3 for number in range(30)] * 2  # the same leaf in another class, too
    assert groups(r".*leaf\d+") == [number // 3 for number in range(60)]
    assert groups(r"(\w+)/leaf(\d+)") == [number // 3 for number in range(60)]
    assert groups(r"^(scab|well)/") == [0] * 30 + [1] * 30
    assert groups(r"leaf(0\d)?") == [number // 3 if number < 30 else 0 for number in range(30)] * 2
    assert groups(r"-(?:(0)|(1)|(2))") == [0, 1, 2] * 20  # groups without a part in the match are empty
    assert load_raw(DataConfig(name="folder", folder=leaves)).groups is None


def test_photographs_of_a_leaf_stay_together(leaves: Path) -> None:
    config = DataConfig(name="folder", folder=leaves, group_by=r".*leaf\d+", validation=8, test=10)
    data = load_data(config, seed=4)
    parts = [part.inputs[:, 0, 0, 0].mul(255).round().int() for part in (data.train, data.validation, data.test)]
    leaf = [{(int(value) // 100, int(value) % 100 // 3) for value in part} for part in parts]
    assert [len(part) for part in parts] == [39, 9, 12]
    assert sum(len(part) for part in leaf) == len(set.union(*leaf)) == 20


def test_a_image_without_a_group_is_named(leaves: Path) -> None:
    for number in range(2):
        Image.new("L", (4, 4)).save(leaves / "well" / f"other-{number}.png")
    with pytest.raises(DataError) as caught:
        load_raw(DataConfig(name="folder", folder=leaves, group_by=r"leaf\d+"))
    assert f"{leaves}: data.group_by 'leaf\\\\d+' finds nothing in 2 of 62 paths" in str(caught.value)
    assert "well/other-0.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pattern_that_groups_nothing_is_an_error(leaves: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_raw(DataConfig(name="folder", folder=leaves, group_by=r"(\w+)/leaf(.+)\.png"))
    assert "groups nothing: what it finds is different in each of 60 paths, in the first it is 'scab 00-0'" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"group_by": "leaf("},
        {"group_by": "leaf(\n"},
        {"group_by": ""},
        {"group_by": "x" * 201},
        {"group_by": "a{99999999999999999999}"},
        {"group_by": True},
        {"group_by": 3},
        {"channels": 2},
        {"channels": True},
        {"skip_bad": 7},
    ],
)
def test_options_that_cannot_be_used(content: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        validate({"name": "folder", "folder": "x"} | content, DataConfig, "data.yaml")
    assert next(iter(content)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["digits", "mnist", "pneumoniamnist"])
@pytest.mark.parametrize("content", [{"group_by": "x"}, {"skip_bad": True}])
def test_only_data_sets_of_files_can_be_grouped_or_skipped(name: str, content: dict[str, object]) -> None:
    with pytest.raises(
        ConfigError, match=f"`{next(iter(content))}` belongs to the data sets folder, plantvillage-apple"
    ):
        validate({"name": name} | content, DataConfig, "data.yaml")


def test_options_name_a_run_only_when_they_are_set() -> None:
    own = {"name": "folder", "folder": "x"}
    assert DataConfig(**own, skip_bad=False, group_by=None, channels=None).identity() == own
    assert DataConfig(**own, skip_bad=True, channels=3).identity() == own | {"skip_bad": True, "channels": 3}


def test_raw_data_that_was_changed_is_split_as_before() -> None:
    config = DataConfig(name="digits", training=900, validation=100)
    raw, data = load_raw(config), load_data(config, seed=5)
    halved = RawData(raw.name, Examples(raw.training.inputs.flatten(1) / 2, raw.training.targets), None, "md5:1")
    other = split_data(halved, config, seed=5)
    for name in ("train", "validation", "test"):
        part, was = getattr(other, name), getattr(data, name)
        assert torch.equal(part.inputs, was.inputs.flatten(1) / 2)
        assert torch.equal(part.targets, was.targets)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [900, 100, 360]
    own = RawData(raw.name, raw.training, raw.training.first(50), "")
    with pytest.raises(DataError, match="digits comes with its own test set"):
        split_data(own, DataConfig(name="digits", test=3), seed=5)


def test_a_pattern_that_takes_for_ever_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient, "SECONDS", 0.2)
    with pytest.raises(DataError, match="takes too long to find; write it without nested repetitions"):
        patient.search_all("((.+)+)+Z", ["class/an image of some forty letters.png"], "images")
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL  # as it was before
    assert patient.search_all("a", ["a", "b"], "images")[1] is None
