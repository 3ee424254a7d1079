"""A spec makes the same model every time, and nothing else in the process notices."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tombola.errors import ConfigError, ModelError
from tombola.models import ModelConfig, ModelSpec, architectures, build
from tombola.models.initialise import initialisers
from tombola.pruning import prunable_parameters
from tombola.runs.configs import validate


def _spec(seed: int = 0, **fields: object) -> ModelSpec:
    return validate({"input_shape": (1, 28, 28), "classes": 10, "seed": seed, **fields}, ModelSpec, "test")


def _bits(spec: ModelSpec) -> dict[str, Tensor]:
    return build(spec).state_dict()


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@given(seed=st.integers(0, 2**64 - 1), widths=st.lists(st.integers(1, 5), min_size=1, max_size=3))
@settings(max_examples=30)
def test_a_spec_alone_makes_every_bit(seed: int, widths: list[int]) -> None:
    spec = _spec(seed, input_shape=(1, 3, 3), widths=widths)
    first = _bits(spec)
    torch.rand(3)
    assert _equal(_bits(spec), first)
    assert not _equal(_bits(spec.model_copy(update={"seed": (seed + 1) % 2**64})), first)


@pytest.mark.parametrize("architecture", list(architectures))
@pytest.mark.parametrize("initialisation", list(initialisers))
def test_building_leaves_the_global_random_stream_alone(architecture: str, initialisation: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    build(_spec(architecture=architecture, initialisation=initialisation, input_shape=(3, 32, 32)))
    assert torch.equal(torch.get_rng_state(), before)


def test_lenet_300_100_is_the_papers() -> None:
    model = build(_spec())
    weights = prunable_parameters(model)
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {
        "fc1.weight": (300, 784),
        "fc2.weight": (100, 300),
        "output.weight": (10, 100),
    }
    assert sum(weight.numel() for weight in weights.values()) == 266_200
    assert [name for name, _ in model.named_children()] == ["flatten", "fc1", "fc1_relu", "fc2", "fc2_relu", "output"]
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(
    ("initialisation", "variance"),
    [
        ("glorot-normal", lambda fan_in, fan_out: 2 / (fan_in + fan_out)),
        ("kaiming-normal", lambda fan_in, _: 2 / fan_in),
    ],
)
def test_initial_weights_have_the_formulas_spread(initialisation: str, variance: object) -> None:
    model = build(_spec(initialisation=initialisation))
    for name, weight in prunable_parameters(model).items():
        fan_out, fan_in = weight.shape
        values = weight.detach().double()
        std = math.sqrt(variance(fan_in, fan_out))  # type: ignore[operator]
        error = 4 / math.sqrt(values.numel())  # four standard errors of a mean
        assert abs(float(values.mean())) < error * std, name
        assert abs(float(values.std()) / std - 1) < error / math.sqrt(2), name
        assert abs(float((values / std).pow(4).mean()) - 3) < error * math.sqrt(96), name  # a normal's kurtosis
    for name, bias in model.named_parameters():
        if name.endswith("bias"):
            assert not bias.any(), name


def test_layers_are_drawn_independently() -> None:
    weights = prunable_parameters(build(_spec(widths=(10, 10, 10), input_shape=(10,))))
    flat = [weight.detach().reshape(-1)[:100] for weight in weights.values()]
    for index, one in enumerate(flat):
        for other in flat[index + 1 :]:
            assert not torch.isclose(one / one.std(), other / other.std()).any()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"architecture": "lenet-300-10"}, "did you mean 'lenet-300-100'?"),
        ({"initialisation": "glorot"}, "glorot-normal"),
        ({"widths": []}, "widths"),
        ({"widths": [0]}, "widths.0"),
        ({"widths": "many"}, "widths"),
        ({"input_shape": [28, -1]}, "input_shape.1"),
        ({"classes": 1}, "classes"),
        ({"seed": -1}, "seed"),
        ({"dtype": "float16"}, "dtype"),
        ({"normalisation": {"std": 0}}, "normalisation.std"),
        ({"normalisation": {"std": [0.5, 0]}}, "normalisation.std.1"),
        ({"normalisation": {"mean": [0.5, 0.5]}}, "2 means and 1 standard deviations"),
        ({"normalisation": {"mean": [], "std": []}}, "0 means and 0 standard deviations"),
        ({"normalisation": {"mean": [0, 0], "std": [1, 1]}}, "2 means for inputs of 1 channel"),
        ({"architecture": "conv-2"}, "did you mean 'conv2'?"),
        ({"weights": 3}, "unknown key"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _spec(**fields)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fields", [{"seed": 2**70}, {"widths": [10**15]}, {"widths": [10**30]}])
def test_a_model_that_torch_cannot_make_is_one_line(fields: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="cannot build lenet-300-100") as caught:
        build(_spec(**fields))
    assert "\n" not in str(caught.value)


def test_normalisation_is_one_number_or_one_per_channel() -> None:
    assert _spec().normalisation == _spec(normalisation={"mean": [0.0], "std": [1.0]}).normalisation
    earlier = _spec(normalisation={"mean": 0.0, "std": "1e-1"}).normalisation  # as specs were written at first
    assert (earlier.mean, earlier.std) == ((0.0,), (0.1,))
    coloured = _spec(input_shape=(3, 8, 8), normalisation={"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3]})
    assert ModelSpec.model_validate_json(coloured.model_dump_json()) == coloured


def test_a_config_needs_nothing() -> None:
    assert ModelConfig().identity() == {}
