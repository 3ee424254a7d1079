"""A network's Keras export: the file computes what the network does, or it is not written."""

from __future__ import annotations

import builtins
import random
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from keras_networks import keras
from tombola.errors import ModelError, StorageError
from tombola.models import ModelSpec, build, keras_export
from tombola.models.keras_export import keras_masks, write_keras
from tombola.models.keras_layouts import to_keras
from tombola.models.keras_models import read_keras
from tombola.models.spec import Normalisation
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks, prune

IMAGES = (3, 37, 33)
"""Sides that no pool halves evenly, and that cannot be mistaken for one another."""
NORMALISATION = Normalisation(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 1 / 255))
WIDTHS = {
    "lenet-300-100": (12, 8),
    "lenet5": (3, 4, 12, 8),
    "lenet5-caffe": (4, 5, 10),
    "conv2": (4, 5, 12, 8),
    "conv4": (4, 4, 5, 5, 12, 8),
    "conv6": (4, 4, 5, 5, 6, 6, 12, 8),
    "vgg16-keras": (4, 4, 5, 5, 6, 12, 8),
    **dict.fromkeys(("vgg11", "vgg13", "vgg16", "vgg19"), (6, 6, 7, 8, 8)),
}


def spec_of(architecture: str, shape: tuple[int, ...] = IMAGES, **fields: Any) -> ModelSpec:
    content = {"widths": WIDTHS.get(architecture), "classes": 5, "seed": 3, **fields}
    return ModelSpec(architecture=architecture, input_shape=shape, **content)


def trained(spec: ModelSpec) -> nn.Module:
    """The model of `spec` with biases and statistics that are not 0 and 1 any more, as after training."""
    model = build(spec)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dim() == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.25)
            elif not tensor.dim():
                assert name.endswith("num_batches_tracked")
                tensor.zero_()
    return model


def predictions(path: Path, inputs: torch.Tensor) -> torch.Tensor:
    """What Keras's own `predict` gives for inputs as torch has them."""
    model = keras.saving.load_model(path, compile=False)
    return torch.from_numpy(model.predict(inputs.movedim(1, -1).numpy(), verbose=0))


@pytest.mark.parametrize("architecture", WIDTHS)
def test_a_network_its_export_and_the_network_read_back(architecture: str, tmp_path: Path) -> None:
    spec = spec_of(architecture, normalisation=NORMALISATION)
    model = trained(spec)
    path = tmp_path / "export.keras"
    error = write_keras(path, model, spec.input_shape, spec.normalisation)
    assert 0 < error < 1e-5
    pixels = torch.rand(3, *IMAGES, generator=torch.Generator().manual_seed(5))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (NORMALISATION.mean, NORMALISATION.std))
    with torch.no_grad():
        wanted = model.eval()((pixels - mean) / std).softmax(1)
    torch.testing.assert_close(predictions(path, pixels), wanted, atol=1e-5, rtol=0)
    again = read_keras(path)
    assert (again.architecture, again.widths) == (spec.architecture, spec.widths)
    assert (again.input_shape, again.classes, again.normalisation) == (IMAGES, 5, NORMALISATION)
    assert content_sha256(again.weights) == content_sha256(model.state_dict())


def test_features_of_a_base(tmp_path: Path) -> None:
    spec = spec_of("head", (24,), widths=(9, 7), dropout=0.25, normalisation=Normalisation(mean=(0.5,), std=(0.25,)))
    model = trained(spec)
    assert write_keras(tmp_path / "head.keras", model, (24,), spec.normalisation) < 1e-5
    again = read_keras(tmp_path / "head.keras")
    assert (again.widths, again.dropout, again.input_shape) == ((9, 7), 0.25, (24,))
    assert content_sha256(again.weights) == content_sha256(model.state_dict())


def test_layers_keep_their_names_and_come_before_the_probabilities(tmp_path: Path) -> None:
    model = trained(spec_of("lenet5", dropout=0.5))
    write_keras(tmp_path / "lenet.keras", model, IMAGES, Normalisation())
    export = keras.saving.load_model(tmp_path / "lenet.keras", compile=False)
    assert [layer.name for layer in export.layers] == ["input", *dict(model.named_children()), "probabilities"]


class Odd(nn.Conv2d):
    pass


@pytest.mark.parametrize(
    "convolution",
    [
        pytest.param(nn.Conv2d(4, 6, 3, stride=2, padding=1), id="stride"),
        pytest.param(nn.Conv2d(4, 6, (3, 5), padding=(2, 1)), id="more padding"),
        pytest.param(nn.Conv2d(4, 6, 3, padding=2, dilation=2), id="dilation"),
        pytest.param(nn.Conv2d(4, 6, 2, padding=1, bias=False), id="even kernel"),
        pytest.param(nn.Conv2d(4, 6, 4, padding="same"), id="even kernel, same"),
        pytest.param(nn.Conv2d(4, 6, (3, 1), padding=(1, 0), groups=2), id="groups"),
    ],
)
def test_convolutions_of_somebodys_own(convolution: nn.Conv2d, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), convolution, nn.MaxPool2d((3, 2), stride=2), nn.Flatten()]
    features = nn.Sequential(*layers)(torch.zeros(1, 1, 12, 11)).shape[1]
    model = nn.Sequential(*layers, nn.Linear(features, 3))
    assert write_keras(tmp_path / "own.keras", model, (1, 12, 11), Normalisation()) < 1e-5


REFUSED = {
    "another layer": (nn.GELU(), "layer odd is a GELU, which cannot be exported to Keras; these can: Conv2d"),
    "a subclass": (Odd(1, 1, 3), "layer odd is a Odd"),
    "a block": (nn.Sequential(nn.ReLU()), "layer odd is a Sequential"),
    "reflection": (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "layer odd pads with reflect"),
    "a padded pool": (nn.MaxPool2d(2, padding=1), "layer odd pads, dilates"),
    "a pool that rounds up": (nn.MaxPool2d(2, ceil_mode=True), "layer odd pads, dilates, rounds up"),
    "a larger mean": (nn.AdaptiveAvgPool2d(2), "layer odd makes images of 2 pixels"),
    "norm of the batch": (nn.BatchNorm2d(1, track_running_stats=False), "layer odd has no weights, no running"),
    "part of it flat": (nn.Flatten(2), "layer odd flattens a part only"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_named(case: str, tmp_path: Path) -> None:
    module, said = REFUSED[case]
    model = nn.Sequential(OrderedDict(odd=module, flatten=nn.Flatten(), output=nn.LazyLinear(2)))
    with pytest.raises(ModelError, match=said):
        write_keras(tmp_path / "x.keras", model, (1, 8, 8), Normalisation())
    assert not list(tmp_path.iterdir())


def test_a_network_that_is_no_chain(tmp_path: Path) -> None:
    spec = spec_of("resnet20", (1, 8, 8), widths=(4, 4, 4))
    with pytest.raises(ModelError, match="cannot be exported to Keras"):
        write_keras(tmp_path / "x.keras", build(spec), (1, 8, 8), Normalisation())
    with pytest.raises(ModelError, match="a Linear cannot be exported to Keras: only networks whose layers follow"):
        write_keras(tmp_path / "x.keras", nn.Linear(3, 2), (3,), Normalisation())


@pytest.mark.parametrize("name", ["x.h5", "x", "x.KERAS"])
def test_other_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"call it x\.keras"):
        write_keras(tmp_path / name, nn.Sequential(nn.Linear(3, 2)), (3,), Normalisation())


class TestGate:
    def test_an_export_that_differs_is_not_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Leaving out the permutation after a flattened image is the mistake that exporters make."""
        monkeypatch.setattr(keras_export, "flattened_channels", lambda model, shape: dict.fromkeys(WEIGHTED, 1))
        with pytest.raises(ModelError, match=r"not written, its logits differ .* by [\d.]+e-0[1-3] of the largest and"):
            write_keras(tmp_path / "x.keras", trained(spec_of("lenet5")), IMAGES, Normalisation())
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_nor_one_of_no_numbers(self, value: float, tmp_path: Path) -> None:
        model = trained(spec_of("lenet5"))
        with torch.no_grad():
            model.get_submodule("dense_1").bias[0] = value
        path = tmp_path / "x.keras"
        path.write_bytes(b"what was there")
        with pytest.raises(ModelError, match="not written"):
            write_keras(path, model, IMAGES, Normalisation())
        assert path.read_bytes() == b"what was there"
        assert list(tmp_path.iterdir()) == [path]

    def test_probabilities_are_held_to_what_they_are(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A bias off by 2e-6 of the largest logit passes as a logit; where two logits are equal a softmax shows it."""
        model = nn.Sequential(OrderedDict(output=nn.Linear(64, 2)))
        with torch.no_grad():
            model.output.weight.fill_(1000 / 64)
            model.output.bias.zero_()
            largest = float(model(torch.full((1, 64), 0.5)).max())
        real = keras_export.variables
        monkeypatch.setattr(
            keras_export,
            "variables",
            lambda module, channels: [real(module, channels)[0], torch.tensor([0.0, 2e-6 * largest])],
        )
        with pytest.raises(
            ModelError, match=r"by ([\d.e-]+) of the largest and its probabilities by ([\d.e-]+), wh"
        ) as said:
            write_keras(tmp_path / "x.keras", model, (64,), Normalisation())
        logits, probabilities = map(float, re.search(r"by (\S+) of .* by (\S+), where", str(said.value)).groups())
        assert logits < 1e-5 < probabilities
        assert not list(tmp_path.iterdir())

    def test_a_network_that_is_dead_on_noise_is_seen_on_examples(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its unit wakes above a mean of 0.9, which noise never has; an export with another kernel passes unseen."""
        model = nn.Sequential(OrderedDict(fc1=nn.Linear(64, 2), relu=nn.ReLU(), output=nn.Linear(2, 2)))
        with torch.no_grad():
            model.fc1.weight.fill_(1.0)
            model.fc1.bias.fill_(-0.9 * 64)
        real = keras_export.variables

        def wrong(module: nn.Module, channels: int | None) -> list[torch.Tensor]:
            values = real(module, channels)
            return [values[0] * 1.01, values[1]] if module is model.output else values

        monkeypatch.setattr(keras_export, "variables", wrong)
        assert write_keras(tmp_path / "noise.keras", model, (64,), Normalisation()) < 1e-5
        with pytest.raises(ModelError, match="not written"):
            write_keras(tmp_path / "x.keras", model, (64,), Normalisation(), examples=torch.ones(3, 64))
        monkeypatch.setattr(keras_export, "variables", real)
        assert write_keras(tmp_path / "x.keras", model, (64,), Normalisation(), examples=torch.ones(3, 64)) < 1e-5

    @pytest.mark.parametrize("part", ["noise", "examples"])
    def test_what_is_infinite_in_either_set(self, part: str, tmp_path: Path) -> None:
        """A hidden unit that is far beyond float32 for bright images only, or for dark ones."""
        model = nn.Sequential(OrderedDict(fc1=nn.Linear(64, 3), relu=nn.ReLU(), output=nn.Linear(3, 2)))
        with torch.no_grad():
            model.fc1.weight.fill_(1e37 if part == "noise" else -1e37)
            model.fc1.bias.fill_(0.0 if part == "noise" else 1e38)
            model.output.weight.fill_(1e38)
        dark, bright = torch.zeros(2, 64), torch.ones(2, 64)
        assert model(dark if part == "noise" else bright).isfinite().all()
        assert not model(bright if part == "noise" else dark).isfinite().any()
        with pytest.raises(ModelError, match=r"not written, .* by nan"):
            write_keras(tmp_path / "x.keras", model, (64,), Normalisation(), examples=dark)

    @pytest.mark.parametrize("shape", [(2, 28, 28), (2, 3, 33, 37), (2,), ()])
    def test_examples_of_another_shape(self, shape: tuple[int, ...], tmp_path: Path) -> None:
        model = trained(spec_of("lenet5"))
        with pytest.raises(ModelError, match=r"x\.keras: examples of .* for a network of \(3, 37, 33\)"):
            write_keras(tmp_path / "x.keras", model, IMAGES, Normalisation(), examples=torch.zeros(shape))

    def test_inputs_that_do_not_fit_are_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"x\.keras: keras 3\.\S+ on \w+ cannot write this network: ") as caught:
            write_keras(tmp_path / "x.keras", trained(spec_of("lenet5")), (1, 28, 28), Normalisation())
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.iterdir())

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StorageError, match="cannot write"):
            write_keras(tmp_path / "file" / "x.keras", nn.Sequential(nn.Linear(3, 2)), (3,), Normalisation())


WEIGHTED = ("dense_1", "dense_2", "output")


def test_the_network_and_the_random_streams_stay_as_they_are(tmp_path: Path) -> None:
    model = trained(spec_of("lenet5", dropout=0.5)).train()
    model.get_submodule("conv_1").eval()
    before = content_sha256(model.state_dict()), [module.training for module in model.modules()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    write_keras(tmp_path / "x.keras", model, IMAGES, NORMALISATION)
    assert before == (content_sha256(model.state_dict()), [module.training for module in model.modules()])
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("missing", ["keras", "h5py"])
def test_without_the_extra(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name == missing:
            raise ImportError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ModelError, match=rf"need {missing}, which is not installed: pip install 'tombola\[keras\]'"):
        write_keras(tmp_path / "x.keras", nn.Sequential(nn.Linear(3, 2)), (3,), Normalisation())


class TestMasks:
    @pytest.mark.parametrize("architecture", ["lenet-300-100", "lenet5", "conv4", "vgg11", "vgg16-keras"])
    def test_are_where_the_kernels_are_not_zero(self, architecture: str, tmp_path: Path) -> None:
        model = trained(spec_of(architecture))
        masks = prune(model, 0.6)
        masks.apply_(model)
        assert all(int((p != 0).sum()) == masks[n].kept for n, p in masks.parameters_of(model).items())
        write_keras(tmp_path / "x.keras", model, IMAGES, Normalisation())
        export = keras.saving.load_model(tmp_path / "x.keras", compile=False)
        laid_out = keras_masks(model, IMAGES, masks)
        assert len(laid_out) == len(masks)
        for name, keep in laid_out.items():
            kernel = np.array(export.get_layer(name.removesuffix("/kernel")).kernel.numpy())
            assert keep.dtype == np.bool_
            assert np.array_equal(keep, kernel != 0), name

    def test_without_the_permutation_after_flatten_they_are_not(self) -> None:
        model = trained(spec_of("lenet5"))
        masks = prune(model, 0.6)
        wrong = masks["dense_1.weight"].keep.T.numpy()
        right = keras_masks(model, IMAGES, masks)["dense_1/kernel"]
        assert right.shape == wrong.shape
        assert right.sum() == wrong.sum()
        assert not np.array_equal(right, wrong)

    def test_full_masks_keep_everything(self) -> None:
        model = trained(spec_of("conv2"))
        laid_out = keras_masks(model, IMAGES, Masks.full(model))
        assert all(keep.all() for keep in laid_out.values())


def test_the_permutation_spelled_out() -> None:
    """Entry (row, column, channel) of Keras's flattened image is entry (channel, row, column) of torch's."""
    outputs, channels, height, width = 2, 3, 4, 5
    weight = torch.arange(outputs * channels * height * width).view(outputs, -1)
    kernel = to_keras(weight, channels)
    for row in range(height):
        for column in range(width):
            for channel in range(channels):
                theirs, ours = (row * width + column) * channels + channel, (channel * height + row) * width + column
                assert torch.equal(kernel[theirs], weight[:, ours])
