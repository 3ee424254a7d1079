"""Examples behind a frozen base: the very features, the very split, computed once for everybody."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from small_bases import NORMALISATION, WIDTHS, data_config, forget, own_cache, write_digits, write_folder, write_weights
from tombola.data import DataConfig, load_data, load_raw
from tombola.errors import ConfigError, DataError, TombolaError
from tombola.runs.configs import Config, validate
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.single.config import CompareConfig, PruneConfig, TrainConfig
from tombola.training import feature_cache, frozen
from tombola.training.base import FrozenBase
from tombola.training.frozen import base_of, foreseen_examples, load_examples, load_raw_examples, prepare_examples

PART = 64


@pytest.fixture(autouse=True)
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(feature_cache, "PART", PART)
    with own_cache(tmp_path / "cache") as folder:
        yield folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits") / "digits.npz")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that pass a base."""
    return counted(monkeypatch)


def counted(monkeypatch: pytest.MonkeyPatch, most: int = 10**9) -> list[int]:
    """After the `most`th pass the process is as if killed."""
    real, seen = frozen._pass, []

    def counting(base: FrozenBase, batch: Tensor) -> Tensor:
        if len(seen) == most:
            raise KeyboardInterrupt
        seen.append(len(batch))
        return real(base, batch)

    monkeypatch.setattr(frozen, "_pass", counting)
    return seen


def by_hand(config: DataConfig) -> Tensor:
    """Every batch through the base's own modules."""
    raw, base = load_raw(config), base_of(config)
    assert base is not None
    assert raw.test is not None
    found = []
    mean, std = base.normalisation.mean[0], base.normalisation.std[0]
    with torch.no_grad():
        for hidden in torch.cat([raw.training.inputs, raw.test.inputs]).split(PART):
            for batch in ((hidden - mean) / std).split(frozen.BATCH):
                activations = batch.contiguous(memory_format=torch.channels_last)
                for part in base.network:
                    activations = part(activations)
                found.append(activations)
    return torch.cat(found)


@pytest.mark.parametrize("layer", ["block5_pool", "block2_conv1"])
@pytest.mark.parametrize("own_normalisation", [True, False])
def test_features_are_those_of_the_base_to_the_bit(
    layer: str, own_normalisation: bool, images: Path, tmp_path: Path
) -> None:
    weights = write_folder(tmp_path / "parent")
    config = data_config(images, {"weights": str(weights), "layer": layer} if own_normalisation else None)
    raw = load_raw_examples(config)
    assert raw.test is not None
    assert torch.equal(torch.cat([raw.training.inputs, raw.test.inputs]), by_hand(config))
    assert np.ptp(raw.training.inputs.numpy(), axis=0).any()
    base = base_of(config)
    assert base is not None
    assert (base.normalisation == NORMALISATION) == own_normalisation


def test_wrong_normalisation_would_be_seen(images: Path, tmp_path: Path) -> None:
    weights = str(write_weights(tmp_path / "w.safetensors"))
    plain = data_config(images, {"weights": weights, "preprocessing": "none"})
    folder = data_config(images, {"weights": str(write_folder(tmp_path / "parent"))})
    assert base_of(plain).sha256 == base_of(folder).sha256  # type: ignore[union-attr]
    assert not torch.equal(load_raw_examples(plain).training.inputs, load_raw_examples(folder).training.inputs)


class TestTheSplit:
    """Each image's features stand where the image stood."""

    def same(self, config: DataConfig, seed: int) -> None:
        pixels = load_data(config.model_copy(update={"base": None}), seed)
        behind = load_examples(config, seed)
        base = base_of(config)
        assert base is not None
        for before, after in (
            (pixels.train, behind.train),
            (pixels.validation, behind.validation),
            (pixels.test, behind.test),
        ):
            assert torch.equal(before.targets, after.targets)
            with torch.no_grad():
                torch.testing.assert_close(frozen._pass(base, before.inputs), after.inputs)
        assert (behind.classes, behind.name) == (pixels.classes, pixels.name)
        assert behind.checksum != pixels.checksum

    @given(seed=st.integers(0, 2**40), validation=st.integers(1, 60), training=st.none() | st.integers(30, 60))
    @settings(max_examples=25)
    def test_is_that_of_the_pixels(self, images: Path, seed: int, validation: int, training: int | None) -> None:
        self.same(data_config(images, validation=validation, training=training), seed)

    @pytest.mark.parametrize("seed", [0, 3])
    def test_with_groups_too(self, seed: int, tmp_path: Path) -> None:
        bunch = load_digits()
        for number, (image, label) in enumerate(zip(bunch.images[:60], bunch.target[:60] % 2, strict=True)):
            folder = tmp_path / "leaves" / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 15).astype(np.uint8)).save(folder / f"leaf{number // 4}_{number}.png")
        content = {
            **{"name": "folder", "folder": str(tmp_path / "leaves"), "size": 32, "group_by": r"(leaf\d+)_"},
            "base": {"widths": WIDTHS},
        }
        config = validate(content, DataConfig, "data")
        self.same(config, seed)
        # The same images without groups have the same features in memory, and another split.
        alone = config.model_copy(update={"group_by": None})
        self.same(alone, seed)
        one, other = (load_examples(c, seed).train.targets.tolist() for c in (config, alone))
        assert one != other


class TestKilled:
    def test_a_computation_goes_on(self, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """150 images are parts of 64, 64 and 22, in batches of 32."""
        config = data_config(images)
        whole = by_hand(config)
        with monkeypatch.context() as patch:
            first = counted(patch, most=3)  # in the midst of the second part
            with pytest.raises(KeyboardInterrupt):
                load_raw_examples(config)
        assert first == [32, 32, 32]
        forget()
        second = counted(monkeypatch)
        raw = load_raw_examples(config)
        assert second == [32, 32, 22]
        assert torch.equal(torch.cat([raw.training.inputs, raw.test.inputs]), whole)  # type: ignore[union-attr]

    @pytest.mark.parametrize("damage", ["cut", "altered", "gone", "another's"])
    def test_a_damaged_part_is_computed_again(
        self, damage: str, images: Path, features: Path, passes: list[int]
    ) -> None:
        config = data_config(images)
        whole = load_raw_examples(config).training.inputs
        (entry,) = features.iterdir()
        first, second, _ = sorted(entry.iterdir())
        content = second.read_bytes()
        match damage:
            case "cut":
                second.write_bytes(content[:-5])
            case "altered":
                second.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
            case "gone":
                second.unlink()
            case _:
                shutil.copy(sorted(entry.iterdir())[2], second)
        forget()
        passes.clear()
        assert torch.equal(load_raw_examples(config).training.inputs, whole)
        assert passes == [32, 32]
        forget()
        assert torch.equal(load_raw_examples(config).training.inputs, whole)
        assert passes == [32, 32]  # it was mended
        assert first.exists()


class TestSharing:
    def test_seeds_and_splits_share_one_entry(self, images: Path, features: Path, passes: list[int]) -> None:
        for changes in ({}, {"validation": 40}, {"training": 30}):
            for seed in range(3):
                forget()
                load_examples(data_config(images, **changes), seed)
        assert sum(passes) == 150
        assert len(list(features.iterdir())) == 1

    def test_a_process_reads_it_once(self, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config = data_config(images)
        first = load_raw_examples(config)
        monkeypatch.setattr(feature_cache, "load_own", lambda path: pytest.fail("read again"))
        assert load_raw_examples(config).training.inputs.data_ptr() == first.training.inputs.data_ptr()

    def test_what_makes_other_features_makes_another_entry(self, images: Path, tmp_path: Path, features: Path) -> None:
        weights = str(write_weights(tmp_path / "w.safetensors", channels=3))
        other = str(write_weights(tmp_path / "other.safetensors", channels=3, seed=9))
        more = write_digits(tmp_path / "more.npz", seed=4)
        base: dict[str, Any] = {"weights": weights, "preprocessing": "none"}
        different = [
            (images, base, {"channels": 3}),
            (images, base | {"weights": other}, {"channels": 3}),
            (images, base | {"layer": "block5_conv3"}, {"channels": 3}),
            (images, base | {"preprocessing": "torchvision"}, {"channels": 3}),
            (images, base, {"channels": 3, "size": 40}),
            (more, base, {"channels": 3}),
            (images, {"widths": WIDTHS}, {"channels": 3}),
            (images, {"widths": WIDTHS}, {}),
        ]
        for entries, (where, asked, changes) in enumerate(different, start=1):
            config = data_config(where, asked, **changes)
            checksums = {load_raw_examples(config).checksum, load_raw_examples(config).checksum}
            assert len(checksums) == 1
            assert len(list(features.iterdir())) == entries

    def test_the_path_of_the_weights_makes_none(
        self, images: Path, tmp_path: Path, features: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_weights(tmp_path / "w.safetensors")
        shutil.copy(path, tmp_path / "again.safetensors")
        monkeypatch.chdir(tmp_path)
        for weights in (str(path), "w.safetensors", "again.safetensors"):
            load_raw_examples(data_config(images, {"weights": weights, "preprocessing": "none"}))
        assert len(list(features.iterdir())) == 1

    def test_changed_weights_are_seen_in_a_process_that_goes_on(self, images: Path, tmp_path: Path) -> None:
        config = data_config(images, {"weights": str(tmp_path / "w.safetensors"), "preprocessing": "none"})
        found = []
        for seed in (1, 2):
            write_weights(tmp_path / "w.safetensors", seed=seed)
            found.append(load_raw_examples(config))
        assert found[0].checksum != found[1].checksum
        assert not torch.equal(found[0].training.inputs, found[1].training.inputs)

    def test_without_a_base_nothing_is_kept(self, features: Path) -> None:
        config = DataConfig(name="digits")
        assert load_raw_examples(config) is load_raw(config)
        assert base_of(config) is None
        prepare_examples(config, None, lambda done, total: pytest.fail("nothing to prepare"))
        assert not features.exists()


class TestWhatIsSaid:
    def test_how_far_it_is(self, images: Path) -> None:
        config, said = data_config(images), []
        with pytest.warns(UserWarning, match="NO pretrained weights"):
            prepare_examples(config, None, lambda done, total: said.append((done, total)))
        assert said == [(32, 150), (64, 150), (96, 150), (128, 150), (150, 150)]
        said.clear()
        with pytest.warns(UserWarning, match="NO pretrained weights"):
            prepare_examples(config, None, lambda done, total: said.append((done, total)))
        assert said == []  # nothing was left to do

    def test_random_weights_are_said_where_a_person_looks(self, images: Path, tmp_path: Path) -> None:
        config = data_config(images)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            prepare_examples(config, None, lambda done, total: None)
            load_examples(config, 0)  # as workers do
            weights = str(write_weights(tmp_path / "w.safetensors"))
            trained = data_config(images, {"weights": weights, "preprocessing": "none"})
            prepare_examples(trained, None, lambda done, total: None)
        assert len(caught) == 1
        assert "data.base.weights" in str(caught[0].message)

    @pytest.mark.filterwarnings("ignore:the base has NO")
    def test_what_is_foreseen_is_of_the_same_shape_and_writes_nothing(self, images: Path, features: Path) -> None:
        config = data_config(images)
        foreseen, seconds = foreseen_examples(config, 3)
        assert seconds > 0
        assert not features.exists()
        real = load_examples(config, 3)
        for before, after in ((foreseen.train, real.train), (foreseen.test, real.test)):
            assert before.inputs.shape == after.inputs.shape
            assert torch.equal(before.targets, after.targets)
        again, left = foreseen_examples(config, 3)
        assert left == 0
        assert torch.equal(again.train.inputs, real.train.inputs)


RECIPE = {"length": "2it", "evaluate_every": "1it", "augmentation": ["flip"]}
PLAIN = {"length": "2it", "evaluate_every": "1it"}
BEHIND = {"name": "digits", "base": {"widths": WIDTHS}}


class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "content"),
        [
            (LotteryConfig, {"training": RECIPE, "pruning": {"densities": [0.5]}}),
            (TrainConfig, {"training": RECIPE}),
            (CompareConfig, {"training": RECIPE, "criteria": ["magnitude"], "sparsities": [0.5]}),
            (CompareConfig, {"training": PLAIN, "fine_tuning": RECIPE, "criteria": ["magnitude"], "sparsities": [0.5]}),
            (PruneConfig, {"model": "head", "fine_tuning": RECIPE, "pruning": {"sparsity": 0.5}}),
        ],
    )
    def test_features_cannot_be_augmented(self, kind: type[Config], content: dict[str, Any]) -> None:
        named = content if kind is PruneConfig else {"name": "x", **content}
        with pytest.raises(ConfigError, match="computed once: leave `augmentation` out") as caught:
            validate(named | {"data": BEHIND}, kind, "config")
        assert "\n" not in str(caught.value)
        validate(named | {"data": {"name": "digits"}}, kind, "config")  # without a base it may be

    def test_a_base_brings_its_normalisation(self) -> None:
        with pytest.raises(ConfigError, match="normalisation of its weights: leave `normalise` out"):
            validate(BEHIND | {"normalise": True}, DataConfig, "data")

    def test_features_beyond_the_cache(self, images: Path, monkeypatch: pytest.MonkeyPatch, features: Path) -> None:
        monkeypatch.setenv(feature_cache.VARIABLE, "1e-6")
        with pytest.raises(DataError, match="the features of 150 examples"):
            load_examples(data_config(images, {"widths": WIDTHS, "layer": "block1_conv2"}), 0)
        assert not features.exists()

    def test_small_images(self) -> None:
        with pytest.raises(TombolaError, match=r"\(1, 8, 8\)"):
            load_examples(validate(BEHIND, DataConfig, "data"), 0)


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=3), data=st.data())
def test_parts_behind_each_other_are_as_one(sizes: list[int], data: st.DataObject) -> None:
    whole = torch.arange(sum(sizes))
    joined = frozen.Joined(list(whole.split(sizes)))
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    assert len(joined) == len(whole)
    assert torch.equal(joined.at(slice(start, stop)), whole[start:stop])
