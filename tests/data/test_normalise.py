"""Normalisation: the training part's statistics, exactly, and nothing of the other parts."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from tombola.data import DataConfig, Examples, Normalisation, RawData, load_data
from tombola.data.dataset import split
from tombola.errors import DataError


def _raw(count: int = 300, test: int = 0) -> RawData:
    """Three channels of quite different scale."""
    generator = torch.Generator().manual_seed(0)

    def part(number: int) -> Examples:
        inputs = torch.rand(number, 3, 4, 5, generator=generator) * torch.tensor([1, 0.1, 1e-3]).view(3, 1, 1)
        return Examples(inputs + torch.tensor([0, 0.5, 0.9]).view(3, 1, 1), torch.arange(number) % 2)

    return RawData("three", part(count), part(test) if test else None, "md5:0")


@pytest.mark.parametrize("own", [0, 40])
def test_all_parts_take_the_statistics_of_the_training_part(own: int) -> None:
    raw = _raw(test=own)
    before = raw.training.inputs.clone()
    plain, normal = split(raw, 3, 30, 40), split(raw, 3, 30, 40, normalise=True)
    exact = plain.train.inputs.double()
    mean, std = exact.mean((0, 2, 3)), exact.std((0, 2, 3), unbiased=False)
    torch.testing.assert_close(torch.tensor(normal.normalisation.mean, dtype=torch.float64), mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(torch.tensor(normal.normalisation.std, dtype=torch.float64), std, rtol=1e-11, atol=0)
    for name in ("train", "validation", "test"):
        part, was = getattr(normal, name), getattr(plain, name)
        expected = (was.inputs.double() - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        torch.testing.assert_close(part.inputs.double(), expected, rtol=1e-4, atol=2e-4)  # float32 near 0.9
        assert part.inputs.dtype == torch.float32
        assert torch.equal(part.targets, was.targets)
    assert torch.equal(raw.training.inputs, before)
    assert normal.checksum == plain.checksum


def test_a_model_elsewhere_can_repeat_it_to_the_bit() -> None:
    config = {"name": "digits"}
    plain = load_data(DataConfig(**config), seed=1)
    normal = load_data(DataConfig(**config, normalise=True), seed=1)
    stored = Normalisation(**json.loads(json.dumps(asdict(normal.normalisation))))
    mean, std = torch.tensor(stored.mean).view(-1, 1, 1), torch.tensor(stored.std).view(-1, 1, 1)
    assert torch.equal((plain.test.inputs - mean) / std, normal.test.inputs)
    assert abs(float(normal.train.inputs.mean())) < 1e-5
    assert float(normal.train.inputs.std(unbiased=False)) == pytest.approx(1, abs=1e-5)


def test_without_it_inputs_stay_as_they_are() -> None:
    data = load_data(DataConfig(name="digits"), seed=1)
    assert data.normalisation == Normalisation() == Normalisation(mean=(0.0,), std=(1.0,))
    assert (float(data.train.inputs.min()), float(data.train.inputs.max())) == (0, 1)


def test_each_split_has_its_own() -> None:
    one, other = (load_data(DataConfig(name="digits", normalise=True), seed).normalisation for seed in (1, 2))
    assert one != other


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_a_constant_channel_is_named(value: float) -> None:
    raw = _raw()
    raw.training.inputs[:, 1] = value
    with pytest.raises(DataError, match="three: channel 1 has one value") as caught:
        split(raw, 0, 30, 40, normalise=True)
    assert "\n" not in str(caught.value)
    split(raw, 0, 30, 40)
