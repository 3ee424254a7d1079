"""Augmentation: only the changes that were asked for, by chance, and the same chance after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tombola.data import DataConfig, DataSet, Examples, load_data
from tombola.data.augment import MARGIN, augment
from tombola.errors import ConfigError, DataError
from tombola.models.tensors import content_sha256
from tombola.pruning import prune
from tombola.runs.configs import validate
from tombola.training import Recipe, fit
from tombola.training.batches import Batches
from tombola.training.trained import Evaluation


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(count: int = 40, channels: int = 3, height: int = 6, width: int = 7) -> Tensor:
    """Images in which no two pixels are equal, and none is 0."""
    size = count * channels * height * width
    return torch.arange(1, size + 1, dtype=torch.float32).reshape(count, channels, height, width)


def _windows(image: Tensor) -> dict[tuple[int, int], Tensor]:
    """Every place that a crop may take, by the book."""
    channels, height, width = image.shape
    padded = torch.zeros(channels, height + 2 * MARGIN, width + 2 * MARGIN)
    padded[:, MARGIN : MARGIN + height, MARGIN : MARGIN + width] = image
    places = [(top, left) for top in range(2 * MARGIN + 1) for left in range(2 * MARGIN + 1)]
    return {(top, left): padded[:, top : top + height, left : left + width] for top, left in places}


def test_a_flip_mirrors_some_images_whole() -> None:
    inputs = _images(400)
    out = augment(inputs, ("flip",), _generator())
    mirrored = [torch.equal(new, old.flip(2)) for new, old in zip(out, inputs, strict=True)]
    kept = [torch.equal(new, old) for new, old in zip(out, inputs, strict=True)]
    assert all(one != other for one, other in zip(mirrored, kept, strict=True))
    assert 150 < sum(mirrored) < 250  # five standard deviations of 400 fair coins


@pytest.mark.parametrize("kinds", [("crop",), ("flip", "crop")])
def test_a_crop_is_one_of_the_81_windows(kinds: tuple) -> None:
    inputs = _images(1500, channels=1)
    out = augment(inputs, kinds, _generator())
    places, mirrored = [], 0
    for new, old in zip(out, inputs, strict=True):
        candidates = [(place, False) for place, window in _windows(old).items() if torch.equal(window, new)]
        if "flip" in kinds:
            flipped = _windows(old.flip(2)).items()
            candidates += [(place, True) for place, window in flipped if torch.equal(window, new)]
        assert len(candidates) == 1
        places.append(candidates[0][0])
        mirrored += candidates[0][1]
    assert len(set(places)) == 81
    assert max(places.count(place) for place in set(places)) < 45  # 18.5 each are expected
    assert (600 < mirrored < 900) == ("flip" in kinds)


@given(
    count=st.integers(1, 5),
    channels=st.integers(1, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    kinds=st.sampled_from([(), ("flip",), ("crop",), ("flip", "crop"), ("crop", "flip")]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60)
def test_it_is_a_function_of_inputs_and_generator(
    count: int, channels: int, height: int, width: int, kinds: tuple, seed: int
) -> None:
    inputs = _images(count, channels, height, width)
    before, stream = inputs.clone(), torch.get_rng_state()
    out = augment(inputs, kinds, _generator(seed))
    assert out.shape == inputs.shape
    assert out.is_contiguous()
    assert torch.equal(out, augment(inputs, kinds[::-1], _generator(seed)))
    assert torch.equal(inputs, before)
    assert torch.equal(torch.get_rng_state(), stream)


def test_what_cannot_be_augmented() -> None:
    with pytest.raises(DataError, match="unknown augmentation 'turn'; known: flip, crop"):
        augment(_images(), ("turn",), _generator())  # type: ignore[arg-type]
    with pytest.raises(DataError, match="augmentation is for images"):
        augment(torch.zeros(3, 5), ("flip",), _generator())
    for wrong in (["turn"], ["flip", "flip"]):
        with pytest.raises(ConfigError, match="augmentation"):
            validate({"length": "1ep", "evaluate_every": "1ep", "augmentation": wrong}, Recipe, "recipe.yaml")


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_data(DataConfig(name="digits", normalise=True), seed=0)


def test_batches_depend_on_seed_and_iteration_alone(digits: DataSet) -> None:
    batches = Batches(digits.train, 100, 4, ("flip", "crop"))
    seen = [batches.at(iteration)[0].clone() for iteration in range(20)]
    for iteration in (19, 0, 7, 13):
        fresh = Batches(digits.train, 100, 4, ("flip", "crop"))
        assert torch.equal(fresh.at(iteration)[0], seen[iteration])
        plain, targets = Batches(digits.train, 100, 4).at(iteration)
        assert not torch.equal(plain, seen[iteration])
        assert torch.equal(targets, fresh.at(iteration)[1])
    constant = Examples(_images(1).expand(8, -1, -1, -1), torch.arange(8))
    again = Batches(constant, 8, 4, ("crop",))
    assert not torch.equal(again.at(0)[0].clone(), again.at(1)[0])  # each iteration has its own chance


def test_without_augmentation_batches_live_in_the_same_memory(digits: DataSet) -> None:
    batches = Batches(digits.train, 100, 4)
    assert batches.at(0)[0].data_ptr() == batches.at(1)[0].data_ptr()
    assert Recipe(length="1ep", evaluate_every="1ep").identity() == {
        "length": "1ep",
        "evaluate_every": "1ep",
    }


def test_a_killed_training_with_augmentation_ends_bit_identically(digits: DataSet, tmp_path: Path) -> None:
    recipe = Recipe(length="60it", evaluate_every="10it", augmentation=["flip", "crop"], batch_size=50)

    def run(checkpoint: Path | None, until: int) -> str:
        def stop(evaluation: Evaluation, total: int) -> None:
            if evaluation.iteration == until:
                raise KeyboardInterrupt

        torch.manual_seed(4)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(144, 10)
        )
        masks = prune(model, 0.5)
        masks.apply_(model)
        fit(model, digits, recipe, masks, 5, checkpoint=checkpoint, checkpoint_seconds=0, on_evaluation=stop)
        return content_sha256(model.state_dict())

    whole = run(None, 0)
    for until in (20, 50):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "checkpoint", until)
    assert run(tmp_path / "checkpoint", 0) == whole
    recipe = recipe.model_copy(update={"augmentation": ()})
    assert run(None, 0) != whole
