"""Weights of VGG16, each in its own layout, under our names, with the preprocessing that is known and never guessed."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import ModelError
from tombola.models import ModelSpec, build, pretrained
from tombola.models.pretrained import BYTE_MEANS, IMAGENET, NAMES, PREPROCESSINGS, BaseWeights, read_base
from tombola.models.spec import Normalisation

h5py = pytest.importorskip("h5py")

WIDTHS = (4, 5, 6, 7, 8)
CHANNELS = [width for width, count in zip(WIDTHS, (2, 2, 3, 3, 3), strict=True) for _ in range(count)]
TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Where torchvision's vgg16 has its convolutions among `features`."""


def convolutions(channels: int = 3, count: int = 13) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    inputs = [channels, *CHANNELS]
    return [
        (
            torch.randn(inputs[i + 1], inputs[i], 3, 3, generator=generator),
            torch.randn(inputs[i + 1], generator=generator),
        )
        for i in range(count)
    ]


def as_torchvision(**options: int) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for place, (weight, bias) in zip(TORCHVISION, convolutions(**options), strict=False):
        state[f"features.{place}.weight"], state[f"features.{place}.bias"] = weight, bias
    return state | {"classifier.0.weight": torch.randn(10, 8), "classifier.0.bias": torch.randn(10)}


def as_ours(**options: int) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, (weight, bias) in zip(NAMES, convolutions(**options), strict=False):
        state[f"{name}.weight"], state[f"{name}.bias"] = weight, bias
    return state


def as_keras(path: Path, names: str = "{layer}/{layer}_{kind}_1:0", top: bool = False, root: str = "") -> Path:
    """The layout of Keras's published files, kernels as W and biases as b."""
    kinds = ("W", "b") if "_{kind}" in names else ("kernel", "bias")
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in NAMES]
        for name, (weight, bias) in zip(NAMES, convolutions(), strict=True):
            file[root + names.format(layer=name, kind=kinds[0])] = weight.permute(2, 3, 1, 0).contiguous().numpy()
            file[root + names.format(layer=name, kind=kinds[1])] = bias.numpy()
        file.create_group(f"{root}block1_pool")
        if top:
            file[f"{root}fc1/fc1_W_1:0"] = np.ones((72, 10), np.float32)
            file[f"{root}fc1/fc1_b_1:0"] = np.ones(10, np.float32)
    return path


def outputs(base: BaseWeights, pixels: Tensor) -> Tensor:
    """The base's features of pixels in [0, 1], red first, through the architecture that takes these weights."""
    shape = tuple(pixels.shape[1:])
    spec = ModelSpec(architecture="vgg16-keras", widths=(*WIDTHS, 3, 3), input_shape=shape, classes=2, seed=0)
    model = build(spec).double()
    assert isinstance(model, nn.Sequential)
    own = model.state_dict()
    model.load_state_dict({name: base.weights.get(name, tensor) for name, tensor in own.items()})
    mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in vars_of(base.normalisation))
    with torch.no_grad():
        result: Tensor = model[: list(dict(model.named_children())).index("flatten")]((pixels.double() - mean) / std)
    return result


def vars_of(normalisation: Normalisation) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return normalisation.mean, normalisation.std


def by_hand(prepared: Tensor) -> Tensor:
    """The thirteen convolutions, ReLUs and pools on what is prepared already, spelled out."""
    for name, (weight, bias) in zip(NAMES, convolutions(), strict=True):
        prepared = functional.conv2d(prepared, weight.double(), bias.double(), padding=1).relu()
        if name in ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"):
            prepared = functional.max_pool2d(prepared, 2)
    return prepared


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(2, 3, 32, 35, generator=torch.Generator().manual_seed(1))


class TestTorchvision:
    @pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
    def test_names_preprocessing_and_features(self, suffix: str, pixels: Tensor, tmp_path: Path) -> None:
        path = tmp_path / f"vgg16{suffix}"
        (safetensors.torch.save_file if suffix == ".safetensors" else torch.save)(as_torchvision(), path)
        base = read_base(path, preprocessing="torchvision")
        assert list(base.weights) == [f"{name}.{kind}" for name in NAMES for kind in ("weight", "bias")]
        assert base.normalisation == IMAGENET
        assert "torchvision" in base.source
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        wanted = by_hand((pixels.double() - mean.double()) / std.double())
        torch.testing.assert_close(outputs(base, pixels), wanted, rtol=1e-6, atol=1e-6)

    def test_a_name_promises_the_beginning_of_its_checksum(self, tmp_path: Path) -> None:
        torch.save(as_torchvision(), tmp_path / "vgg16.pth")
        digest = hashlib.sha256((tmp_path / "vgg16.pth").read_bytes()).hexdigest()
        right, wrong = tmp_path / f"vgg16-{digest[:8]}.pth", tmp_path / "vgg16-397923af.pth"
        for path in (right, wrong):
            path.write_bytes((tmp_path / "vgg16.pth").read_bytes())
        assert len(read_base(right, preprocessing="none").weights) == 26
        with pytest.raises(ModelError, match=f"its name says a SHA-256 of 397923af..., it is {digest}"):
            read_base(wrong, preprocessing="none")

    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_its_names_alone_say_nothing_of_images(self, suffix: str, tmp_path: Path) -> None:
        """Networks trained on images in [0, 1] have them as well, also in a file whose name has a right checksum."""
        path = tmp_path / f"vgg16{suffix}"
        (safetensors.torch.save_file if suffix == ".safetensors" else torch.save)(as_torchvision(), path)
        must_be_given(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        own = path.rename(tmp_path / f"vgg16-{digest[:8]}{suffix}")
        must_be_given(own)
        assert read_base(own, preprocessing="none").normalisation == Normalisation()

    def test_the_published_file_needs_no_word(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert pretrained.PUBLISHED_PREPROCESSING["vgg16-397923af.pth"] == "torchvision"
        torch.save(as_torchvision(), tmp_path / "new.pth")
        digest = hashlib.sha256((tmp_path / "new.pth").read_bytes()).hexdigest()
        path = (tmp_path / "new.pth").rename(tmp_path / f"vgg16-{digest[:8]}.pth")
        monkeypatch.setitem(pretrained.PUBLISHED_PREPROCESSING, path.name, "torchvision")
        assert read_base(path).normalisation == IMAGENET
        assert read_base(path, preprocessing="none").normalisation == Normalisation()

    def test_batch_norm_is_another_network(self, tmp_path: Path) -> None:
        torch.save(as_torchvision() | {"features.1.weight": torch.ones(4)}, tmp_path / "vgg16_bn.pth")
        with pytest.raises(ModelError, match=r"features\.1\.weight is of no convolution; VGG16 with batch norm"):
            read_base(tmp_path / "vgg16_bn.pth", preprocessing="torchvision")

    def test_more_convolutions_than_vgg16_has(self, tmp_path: Path) -> None:
        state = as_torchvision()
        for place in (30, 32, 34):
            state |= {f"features.{place}.weight": torch.ones(8, 8, 3, 3), f"features.{place}.bias": torch.ones(8)}
        torch.save(state, tmp_path / "vgg19.pth")
        with pytest.raises(ModelError, match="holds 16 convolutions, VGG16 has 13"):
            read_base(tmp_path / "vgg19.pth", preprocessing="torchvision")

    def test_fewer_and_of_grey_images_are_for_the_caller_to_judge(self, tmp_path: Path) -> None:
        torch.save(as_torchvision(count=5), tmp_path / "few.pth")
        assert len(read_base(tmp_path / "few.pth", preprocessing="torchvision").weights) == 10
        torch.save(as_torchvision(channels=1), tmp_path / "grey.pth")
        assert read_base(tmp_path / "grey.pth", preprocessing="none").weights["block1_conv1.weight"].shape[1] == 1
        with pytest.raises(ModelError, match=r"block1_conv1\.weight takes 1 channel, torchvision's preprocessing"):
            read_base(tmp_path / "grey.pth", preprocessing="torchvision")


class TestKeras:
    def test_is_what_keras_does_by_hand(self, pixels: Tensor, tmp_path: Path) -> None:
        """`caffe`: bytes, blue first, the mean of each channel taken off, nothing divided."""
        base = read_base(as_keras(tmp_path / "vgg16_notop.h5"), preprocessing="keras")
        blue_first = pixels.double().flip(1) * 255
        wanted = by_hand(blue_first - torch.tensor([103.939, 116.779, 123.68], dtype=torch.float64).view(3, 1, 1))
        found = outputs(base, pixels)
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=0)
        assert base.normalisation == BYTE_MEANS
        weight, _ = convolutions()[0]
        assert torch.equal(base.weights["block1_conv1.weight"], weight[:, [2, 1, 0]])
        assert torch.equal(base.weights["block1_conv2.weight"], convolutions()[1][0])

    def test_is_what_keras_itself_does(self, pixels: Tensor) -> None:
        from keras_networks import keras

        prepared = keras.applications.vgg16.preprocess_input(pixels.movedim(1, -1).numpy() * 255)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in vars_of(BYTE_MEANS))
        ours = ((pixels - mean) / std).flip(1).movedim(1, -1)
        torch.testing.assert_close(ours, torch.from_numpy(np.array(prepared)), rtol=1e-5, atol=1e-4)

    @pytest.mark.parametrize(
        ("names", "root"),
        [
            ("{layer}/{layer}_{kind}_1:0", ""),
            ("{layer}/{layer}/{kind}:0", ""),
            ("{layer}/{layer}/{kind}", "model_weights/"),
            ("{layer}/{layer}/{kind}:0", "model_weights/vgg16/"),
        ],
    )
    @pytest.mark.parametrize("top", [False, True])
    def test_layouts(self, names: str, root: str, top: bool, tmp_path: Path) -> None:
        plain = read_base(as_keras(tmp_path / "plain.h5"), preprocessing="keras")
        base = read_base(as_keras(tmp_path / "base.h5", names, top, root), preprocessing="keras")
        assert list(base.weights) == list(plain.weights)
        assert all(torch.equal(tensor, plain.weights[name]) for name, tensor in base.weights.items())

    def test_the_published_name_promises_its_checksum(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        name = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
        path = as_keras(tmp_path / name)
        with pytest.raises(ModelError, match="that of the published file 6d6bbae143d832006294945121d1f1fc"):
            read_base(path)
        monkeypatch.setitem(pretrained.PUBLISHED_MD5, name, hashlib.md5(path.read_bytes()).hexdigest())
        base = read_base(path)
        assert len(base.weights) == 26
        assert base.normalisation == BYTE_MEANS
        must_be_given(path.rename(tmp_path / "mine.h5"))
        assert read_base(tmp_path / "mine.h5", preprocessing="none").normalisation == Normalisation()

    def test_the_checksums_are_those_of_keras(self) -> None:
        from keras_networks import keras

        source = Path(keras.src.applications.vgg16.__file__).read_text()
        for name, md5 in pretrained.PUBLISHED_MD5.items():
            assert name in source
            assert md5 in source

    def test_weights_of_keras_3(self, tmp_path: Path) -> None:
        from keras_networks import functional, keras, vgg_base, vgg_head

        base = functional((32, 32, 3), vgg_base(WIDTHS))
        outer = keras.Sequential([keras.layers.Input((32, 32, 3)), base, *vgg_head()])
        for model in (base, outer):
            model.save_weights(tmp_path / "vgg.weights.h5")
            must_be_given(tmp_path / "vgg.weights.h5")
            found = read_base(tmp_path / "vgg.weights.h5", preprocessing="torchvision")
            assert found.normalisation == IMAGENET
            kernel = np.array(base.get_layer("block4_conv2").get_weights()[0])
            assert torch.equal(found.weights["block4_conv2.weight"], torch.from_numpy(kernel).permute(3, 2, 0, 1))

    def test_a_keras_file_with_any_top(self, tmp_path: Path) -> None:
        from keras_networks import L, functional, saved, vgg_base

        top = [L.GlobalAveragePooling2D(), L.Dense(3, activation="tanh"), L.Dense(1)]
        path = saved(
            functional((None, None, 3), [L.Rescaling(1 / 127.5, offset=-1), *vgg_base(WIDTHS), *top]), tmp_path
        )
        base = read_base(path)
        assert len(base.weights) == 26
        assert base.normalisation == Normalisation(mean=(0.5,), std=(0.5,))
        assert read_base(path, preprocessing="keras").normalisation == BYTE_MEANS
        path = saved(functional((32, 32, 3), [L.Permute((2, 1, 3), name="turn"), *vgg_base(WIDTHS), *top]), tmp_path)
        with pytest.raises(
            ModelError, match=r"layer turn, a Permute, prepares the images; give preprocessing .*blue first"
        ):
            read_base(path)
        assert read_base(path, preprocessing="none").normalisation == Normalisation()

    @pytest.mark.parametrize("names", ["Keras's", "others"])
    def test_a_keras_file_with_nothing_in_front(self, names: str, tmp_path: Path) -> None:
        """As keras.applications.VGG16(weights="imagenet").save() writes it: bytes, blue first, are for the caller."""
        from keras_networks import functional, saved, vgg_base, vgg_head

        base = vgg_base(WIDTHS) if names == "Keras's" else unnamed()
        path = saved(functional((32, 32, 3), [*base, *vgg_head()]), tmp_path)
        must_be_given(path)
        for preprocessing, wanted in (("keras", BYTE_MEANS), ("torchvision", IMAGENET), ("none", Normalisation())):
            assert read_base(path, preprocessing=preprocessing).normalisation == wanted

    @pytest.mark.parametrize("open_sides", [False, True])
    def test_a_normalization_adapted_to_bytes(self, open_sides: bool, pixels: Tensor, tmp_path: Path) -> None:
        from keras_networks import L, functional, keras, saved, vgg_base

        layer = L.Normalization()
        layer.adapt(np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3)).astype(np.float32))
        shape = (None, None, 3) if open_sides else (32, 35, 3)
        model = functional(shape, [layer, *vgg_base(WIDTHS)])
        base = read_base(saved(model, tmp_path))
        assert all(0 < value < 1 for values in vars_of(base.normalisation) for value in values)
        theirs = keras.ops.convert_to_numpy(model(pixels.movedim(1, -1).numpy() * 255))
        found = outputs(base, pixels).movedim(1, -1)
        assert len(found.unique()) > 5
        torch.testing.assert_close(found, torch.from_numpy(np.array(theirs)).double(), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("shape", ["missing", None, [], [None, 32, 32], [None, 32, 32, None], [None, 32, 32, -3]])
    def test_a_keras_file_that_does_not_say_its_channels(self, shape: Any, tmp_path: Path) -> None:
        from keras_networks import L, functional, saved, vgg_base

        path = saved(functional((32, 32, 3), [L.Rescaling(1 / 255), *vgg_base(WIDTHS)]), tmp_path)
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        config = json.loads(members["config.json"])
        first = config["config"]["layers"][0]["config"]
        del first["batch_shape"]
        if shape != "missing":
            first["batch_shape"] = shape
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in (members | {"config.json": json.dumps(config).encode()}).items():
                archive.writestr(name, content)
        with pytest.raises(
            ModelError, match=r"takes inputs of .*; wanted are \(None, height, width, channels\)"
        ) as caught:
            read_base(path)
        assert str(caught.value).count(str(path)) == 1
        assert len(read_base(path, preprocessing="none").weights) == 26

    def test_a_keras_file_of_other_names(self, tmp_path: Path) -> None:
        from keras_networks import L, functional, lenet, saved, vgg_head

        model = functional((32, 32, 3), [L.Rescaling(1 / 255), *unnamed(), *vgg_head()])
        base = read_base(saved(model, tmp_path))
        assert list(base.weights) == list(as_ours())
        assert base.normalisation == Normalisation()
        with pytest.raises(ModelError, match="is a lenet5 and holds no layers called block1_conv1"):
            read_base(saved(functional((28, 28, 1), lenet()), tmp_path))

    def test_our_own_export(self, tmp_path: Path) -> None:
        from tombola.models.keras_export import write_keras

        shape = (3, 32, 32)
        spec = ModelSpec(architecture="vgg16-keras", widths=(*WIDTHS, 9, 8), input_shape=shape, classes=2, seed=4)
        model = build(spec)
        write_keras(tmp_path / "base.keras", model, spec.input_shape, IMAGENET)
        base = read_base(tmp_path / "base.keras")
        assert base.normalisation == IMAGENET
        state = model.state_dict()
        assert len(base.weights) == 26
        assert all(torch.equal(tensor, state[name]) for name, tensor in base.weights.items())


class TestOurs:
    @pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
    def test_the_preprocessing_must_be_said(self, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"base{suffix}"
        state = as_ours() | {"fc1.weight": torch.ones(3, 8), "fc1.bias": torch.ones(3)}
        (safetensors.torch.save_file if suffix == ".safetensors" else torch.save)(state, path)
        must_be_given(path)
        for preprocessing, wanted in (("keras", BYTE_MEANS), ("torchvision", IMAGENET), ("none", Normalisation())):
            base = read_base(path, preprocessing=preprocessing)
            assert base.normalisation == wanted
            assert list(base.weights) == list(as_ours())

    def test_what_is_given_is_believed(self, tmp_path: Path) -> None:
        torch.save(as_torchvision(), tmp_path / "vgg16.pth")
        base = read_base(tmp_path / "vgg16.pth", preprocessing="keras")
        assert base.normalisation == BYTE_MEANS
        assert torch.equal(base.weights["block1_conv1.weight"], convolutions()[0][0].flip(1))

    @pytest.mark.parametrize("name", ["caffe", "kears", "", "x" * 5000])
    def test_no_preprocessing_of_other_names(self, name: str, tmp_path: Path) -> None:
        torch.save(as_ours(), tmp_path / "vgg16.pth")
        with pytest.raises(
            ModelError, match=r"vgg16\.pth: no preprocessing '.*known: keras, none, torchvision"
        ) as caught:
            read_base(tmp_path / "vgg16.pth", preprocessing=name)
        assert len(str(caught.value)) < 400


def must_be_given(path: Path) -> None:
    """Each choice, with what it means."""
    with pytest.raises(ModelError, match="does not say how images were prepared") as caught:
        read_base(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    assert all(f"{name} ({words})" in said for name, words in PREPROCESSINGS.items())


def unnamed() -> list[Any]:
    """VGG16's base of Keras layers whose names Keras made up."""
    from keras_networks import L, vgg_base

    return [
        L.Conv2D(layer.filters, 3, padding="same", activation="relu") if isinstance(layer, L.Conv2D) else layer
        for layer in vgg_base(WIDTHS)
    ]


def changed(**changes: Any) -> dict[str, Tensor]:
    state = as_ours()
    for name, value in changes.items():
        state[name.replace("__", ".")] = value
    return {name: tensor for name, tensor in state.items() if tensor is not None}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            changed(block2_conv1__weight=torch.ones(5, 9, 3, 3)),
            "block2_conv1 takes 9 channels, block1_conv2 before it g",
        ),
        (changed(block2_conv1__bias=torch.ones(4)), r"block2_conv1\.bias of shape \(4,\) is no weight or bias"),
        (changed(block2_conv1__weight=torch.ones(5)), r"block2_conv1\.weight of shape \(5,\) is no weight"),
        (changed(block2_conv1__weight=None), r"block2_conv1\.bias of shape \(5,\) is no weight"),
        (changed(block2_conv1__gamma=torch.ones(5)), r"block2_conv1\.gamma of shape \(5,\) is no weight"),
        (changed(block2_conv1__weight=torch.ones(5, 4, 3, 3).half()), "of torch.float16 holds no finite numbers"),
        (changed(block2_conv1__bias=torch.full((5,), float("nan"))), r"block2_conv1\.bias of torch.float32 holds no"),
        ({"conv.weight": torch.ones(3, 3, 3, 3)}, r"holds no layers called block1_conv1 or features\.0"),
    ],
)
def test_what_does_not_fit(state: dict[str, Tensor], said: str, tmp_path: Path) -> None:
    safetensors.torch.save_file(state, tmp_path / "base.safetensors")
    with pytest.raises(ModelError, match=said) as caught:
        read_base(tmp_path / "base.safetensors", preprocessing="none")
    assert str(tmp_path / "base.safetensors") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_given_checksum(tmp_path: Path) -> None:
    path = tmp_path / "vgg16.pth"
    torch.save(as_torchvision(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_base(path, digest.upper(), "none").weights
    with pytest.raises(ModelError, match=f"its SHA-256 is {digest}, not {'0' * 64}; get the file again"):
        read_base(path, "0" * 64, "none")


class TestHostile:
    @pytest.mark.parametrize("name", ["vgg.h5", "vgg.keras", "vgg.pth", "vgg.safetensors", "vgg.weights.h5"])
    @pytest.mark.parametrize("content", [b"", b"noise" * 100, None])
    def test_noise_and_nothing(self, name: str, content: bytes | None, tmp_path: Path) -> None:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        for sha256 in (None, "0" * 64):
            with pytest.raises(Exception, match=name) as caught:
                read_base(tmp_path / name, sha256)
            assert caught.type.__module__ == "tombola.errors"
            assert "\n" not in str(caught.value)

    def test_groups_that_hold_themselves(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "vgg.h5", "w") as file:
            for number in range(30):
                file[f"again{number}"] = file["/"]
        with pytest.raises(ModelError, match="holds more groups and arrays than are expected"):
            read_base(tmp_path / "vgg.h5")

    def test_links_to_other_files(self, tmp_path: Path) -> None:
        as_keras(tmp_path / "other.h5")
        with h5py.File(as_keras(tmp_path / "vgg.h5"), "a") as file:
            del file["block3_conv1"]
            file["block3_conv1"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/block3_conv1")
        with pytest.raises(ModelError, match="block3_conv1 is a link to elsewhere"):
            read_base(tmp_path / "vgg.h5")

    def test_arrays_that_are_no_kernel_and_bias(self, tmp_path: Path) -> None:
        with h5py.File(as_keras(tmp_path / "vgg.h5"), "a") as file:
            file["block3_conv1/more"] = np.ones((2, 2), np.float32)
        with pytest.raises(ModelError, match=r"vgg\.h5: block3_conv1 has arrays of .* wanted are a kernel and a bias"):
            read_base(tmp_path / "vgg.h5")
