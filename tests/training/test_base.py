"""The frozen base: whose weights it has, where it ends, what it wants of images; and what is refused, in one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import safetensors.torch
import torch

from small_bases import (
    NORMALISATION,
    WIDTHS,
    convolutions,
    own_cache,
    random_images,
    vgg,
    write_folder,
    write_weights,
)
from tombola.data.base import Base
from tombola.errors import ConfigError, ModelError, TombolaError
from tombola.models import ModelSpec, build, published, save_model
from tombola.models.exits import exit_names, find_exit, prefix
from tombola.models.pretrained import BYTE_MEANS, IMAGENET, PREPROCESSINGS
from tombola.models.spec import Normalisation
from tombola.runs.configs import validate
from tombola.training import base as module
from tombola.training.base import RANDOM, FrozenBase, open_base

GREY = (1, 32, 32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path) -> Iterator[None]:
    with own_cache(tmp_path / "cache"):
        yield


def opened(shape: tuple[int, ...] = GREY, **fields: Any) -> FrozenBase:
    return open_base(validate(fields, Base, "data.base"), shape)


def refused(act: Callable[[], object], kind: type[TombolaError], *says: str) -> None:
    with pytest.raises(kind) as caught:
        act()
    assert "\n" not in str(caught.value)
    for part in says:
        assert part in str(caught.value)


class TestRandomWeights:
    def test_are_the_same_every_time(self) -> None:
        first = opened(widths=WIDTHS)
        module._opened.cache_clear()
        again = opened(widths=WIDTHS)
        assert first is not again
        assert first.facts == again.facts
        assert first.source == RANDOM
        assert first.normalisation == Normalisation()

    def test_without_widths_it_is_vgg16_whole(self) -> None:
        whole = opened((3, 32, 32))
        assert sum(p.numel() for p in whole.network.parameters()) == 14_714_688
        assert whole.output_shape == (512, 1, 1)

    def test_it_never_learns(self) -> None:
        base = opened(widths=WIDTHS)
        assert not any(p.requires_grad for p in base.network.parameters())
        assert not any(part.training for part in base.network.modules())


@pytest.mark.parametrize(
    ("layer", "shape"), [("block5_pool", (8, 1, 1)), ("block3_conv3", (8, 8, 8)), ("block1_conv1", (4, 32, 32))]
)
def test_it_ends_behind_its_layer(layer: str, shape: tuple[int, ...]) -> None:
    base = opened(widths=WIDTHS, layer=layer)
    assert base.output_shape == shape
    assert tuple(base.network(random_images(2)).shape) == (2, *shape)
    assert list(dict(base.network.named_children()))[-1].startswith(layer)


class TestFiles:
    @pytest.mark.parametrize(
        ("preprocessing", "wanted"), [("none", Normalisation()), ("torchvision", IMAGENET), ("keras", BYTE_MEANS)]
    )
    def test_the_preprocessing_belongs_to_the_weights(
        self, tmp_path: Path, preprocessing: str, wanted: Normalisation
    ) -> None:
        path = write_weights(tmp_path / "w.safetensors", channels=3)
        base = opened((3, 32, 32), weights=str(path), preprocessing=preprocessing)
        assert base.normalisation == wanted
        stored = convolutions(channels=3)
        if preprocessing == "keras":
            stored["block1_conv1.weight"] = stored["block1_conv1.weight"].flip(1)
        own = base.network.state_dict()
        assert set(own) == set(stored)
        assert all(torch.equal(own[name], tensor) for name, tensor in stored.items())

    def test_a_model_folder_brings_its_own(self, tmp_path: Path) -> None:
        base = opened(weights=str(write_folder(tmp_path / "parent")), layer="block2_pool")
        assert base.normalisation == NORMALISATION
        assert base.source == "model folder parent"
        network = vgg()[1]
        images = random_images(3)
        cut = prefix(network, find_exit(network, "block2_pool")).eval()
        assert torch.equal(base.network(images), cut(images))

    @pytest.mark.parametrize(
        ("history", "wanted"),
        [
            ({"data": {"config": {}, "split_seed": 0, "checksum": "md5:1"}}, "md5:1"),
            ({"data": {"config": {}}}, None),
            ({"data": {"checksum": 3}}, None),
            ({"data": "digits"}, None),
            ({}, None),
        ],
    )
    def test_a_model_folder_may_say_what_it_learnt_from(
        self, history: dict[str, Any], wanted: str | None, tmp_path: Path
    ) -> None:
        spec, network = vgg()
        save_model(tmp_path / "parent", spec, network, history=history)
        assert opened(weights=str(tmp_path / "parent")).trained_on == wanted

    def test_nothing_else_says_it(self, tmp_path: Path) -> None:
        path = write_weights(tmp_path / "w.safetensors")
        assert opened(weights=str(path), preprocessing="none").trained_on is None
        assert opened(widths=WIDTHS).trained_on is None

    def test_any_chain_of_layers_will_do(self, tmp_path: Path) -> None:
        spec = ModelSpec(architecture="lenet5", widths=(3, 4, 9, 8), input_shape=(1, 28, 28), classes=10, seed=0)
        save_model(tmp_path / "lenet", spec, build(spec))
        base = opened((1, 20, 20), weights=str(tmp_path / "lenet"), layer="pool_2")
        assert base.output_shape == (4, 2, 2)

    def test_what_is_unchanged_is_opened_once_and_what_changed_anew(self, tmp_path: Path) -> None:
        path = write_weights(tmp_path / "w.safetensors")
        fields = {"weights": str(path), "preprocessing": "none"}
        first = opened(**fields)
        assert opened(**fields) is first
        write_weights(path, seed=2)
        os.utime(path, ns=(1, 1))  # whatever the clock's grain
        second = opened(**fields)
        assert second.sha256 != first.sha256
        assert opened(**fields) is second

    def test_a_relative_path_is_of_the_folder_where_one_works(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = []
        for seed in (1, 2):
            (tmp_path / str(seed)).mkdir()
            write_weights(tmp_path / str(seed) / "w.safetensors", seed=seed)
            os.utime(tmp_path / str(seed) / "w.safetensors", ns=(1, 1))
            monkeypatch.chdir(tmp_path / str(seed))
            found.append(opened(weights="w.safetensors", preprocessing="none").sha256)
        assert len(set(found)) == 2

    def test_published_weights_are_asked_for_by_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write_weights(tmp_path / "w.safetensors")
        monkeypatch.setattr(module, "published_weights", {"keras": path}.__getitem__)
        assert opened(weights="keras", preprocessing="none").source.startswith("w.safetensors")


class TestNotFetched:
    """Published weights that are not there yet, where somebody only wants to know how long all will take."""

    @pytest.fixture(autouse=True)
    def _no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def nobody(*_: object, **__: object) -> None:
            raise AssertionError("asked the network")

        monkeypatch.setattr(published.urllib.request, "urlopen", nobody)

    def test_random_ones_of_their_shape_stand_for_them(self) -> None:
        config = validate({"weights": "torchvision", "layer": "block3_pool"}, Base, "data.base")
        base = open_base(config, (3, 32, 32), fetch=False)
        assert base.output_shape == (256, 4, 4)
        assert base.source != RANDOM
        assert "torchvision, not downloaded yet" in base.source
        random = opened((3, 32, 32), layer="block3_pool")
        assert base.normalisation != random.normalisation  # features of one are never taken for the other's
        with pytest.raises(AssertionError, match="asked the network"):
            open_base(config, (3, 32, 32))

    def test_they_take_no_grey_images_either(self) -> None:
        config = validate({"weights": "keras"}, Base, "data.base")
        refused(lambda: open_base(config, GREY, fetch=False), ModelError, "takes images of 3 channels, these have 1")

    def test_what_is_there_is_opened(self, tmp_path: Path) -> None:
        path = published.published_path("torchvision")
        path.parent.mkdir(parents=True)
        path.write_bytes(b"another file")
        config = validate({"weights": "torchvision"}, Base, "data.base")
        refused(lambda: open_base(config, (3, 32, 32), fetch=False), ModelError, path.name, "says a SHA-256")

    def test_other_weights_must_be_there(self) -> None:
        config = validate({"weights": "gone.pth"}, Base, "data.base")
        refused(lambda: open_base(config, GREY, fetch=False), ModelError, "there is no gone.pth")


def test_a_config_names_what_weights_can_be_given() -> None:
    """`data` and `models` do not know each other, and must say the same."""
    for name in PREPROCESSINGS:
        assert validate({"weights": "w.pth", "preprocessing": name}, Base, "data.base").preprocessing == name
    choices = get_args(get_args(get_type_hints(Base)["preprocessing"])[0])
    assert set(choices) == set(PREPROCESSINGS)


class TestRefusals:
    def test_weights_that_are_not_there(self, tmp_path: Path) -> None:
        gone = str(tmp_path / "gone.pth")
        refused(
            lambda: opened(weights=gone), ModelError, "data.base.weights: there is no", gone, "tombola train vgg16-base"
        )

    @pytest.mark.parametrize("name", ["a" * 5000, "a\0b", ".", ""])
    def test_names_that_are_none(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        refused(lambda: opened(weights=name), TombolaError)

    @pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.h5", "w.keras"])
    @pytest.mark.parametrize("content", [b"", b"not weights", b"\x89HDF\r\n\x1a\n" + bytes(100), b"PK\x03\x04" * 9])
    def test_damaged_weights(self, name: str, content: bytes, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(content)
        refused(lambda: opened(weights=str(tmp_path / name), preprocessing="none"), TombolaError, name)

    def test_another_checksum(self, tmp_path: Path) -> None:
        path = write_weights(tmp_path / "w.safetensors")
        refused(lambda: opened(weights=str(path), sha256="0" * 64), ModelError, "SHA-256", str(path))

    def test_weights_that_do_not_say_their_preprocessing(self, tmp_path: Path) -> None:
        path = write_weights(tmp_path / "w.safetensors")
        refused(lambda: opened(weights=str(path)), ModelError, "give preprocessing")

    @pytest.mark.parametrize("folder", [False, True])
    def test_another_number_of_channels(self, folder: bool, tmp_path: Path) -> None:
        path = write_folder(tmp_path / "w") if folder else write_weights(tmp_path / "w.safetensors")
        fields = {} if folder else {"preprocessing": "none"}
        act = lambda: opened((3, 32, 32), weights=str(path), **fields)  # noqa: E731
        refused(act, ModelError, "takes images of 1 channel, these have 3; set data.channels to 1, or take other")

    @pytest.mark.parametrize("missing", ["block3_conv2.weight", "block5_conv3.bias", "block1_conv1"])
    def test_weights_of_another_network(self, missing: str, tmp_path: Path) -> None:
        kept = {name: tensor for name, tensor in convolutions().items() if not name.startswith(missing)}
        safetensors.torch.save_file(kept, tmp_path / "w.safetensors")
        act = lambda: opened(weights=str(tmp_path / "w.safetensors"), preprocessing="none")  # noqa: E731
        refused(act, ModelError, "w.safetensors")

    def test_a_layer_that_is_no_exit(self) -> None:
        names = exit_names(vgg()[1])
        refused(lambda: opened(widths=WIDTHS, layer="block9"), ConfigError, "data.base.layer: no exit 'block9'", *names)
        refused(lambda: opened(widths=WIDTHS, layer="fc1"), ConfigError, "data.base.layer", "no image", *names)

    @pytest.mark.parametrize("shape", [(1, 8, 8), (1, 31, 200)])
    def test_images_that_are_too_small(self, shape: tuple[int, ...], tmp_path: Path) -> None:
        refused(lambda: opened(shape, widths=WIDTHS), ModelError, str(shape), "at least 32×32")
        folder = write_folder(tmp_path / "parent")
        refused(lambda: opened(shape, weights=str(folder)), ModelError, "model folder parent", str(shape))

    def test_a_network_without_exits(self, tmp_path: Path) -> None:
        spec = ModelSpec(architecture="lenet-300-100", widths=(5, 4), input_shape=GREY, classes=10, seed=0)
        save_model(tmp_path / "dense", spec, build(spec))
        refused(lambda: opened(weights=str(tmp_path / "dense")), ConfigError, "no convolution")

    def test_a_folder_that_holds_no_model(self, tmp_path: Path) -> None:
        refused(lambda: opened(weights=str(tmp_path)), ModelError, "no spec.json here")

    def test_a_preprocessing_for_a_folder(self, tmp_path: Path) -> None:
        folder = str(write_folder(tmp_path / "parent"))
        refused(lambda: opened(weights=folder, preprocessing="keras"), ModelError, "brings its own preprocessing")

    def test_no_network_for_published_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def nobody(*_: object, **__: object) -> None:
            raise OSError("no route")

        monkeypatch.setattr(published.urllib.request, "urlopen", nobody)
        refused(lambda: opened((3, 32, 32), weights="torchvision"), ModelError, "vgg16-397923af.pth", "no route")

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"widths": [4, 6]}, "five blocks"),
            ({"weights": "w.pth", "widths": list(WIDTHS)}, "five blocks"),
            ({"widths": [4, 6, 8, 8, 0]}, "widths"),
            ({"sha256": "0" * 64}, "belong to a file"),
            ({"preprocessing": "keras"}, "belong to a file"),
            ({"weights": "w.pth", "sha256": "xyz"}, "64 digits"),
            ({"weights": "w.pth", "preprocessing": "caffe"}, "preprocessing"),
            ({"weights": "w.pth", "augmentation": ["flip"]}, "unknown key 'augmentation'"),
        ],
    )
    def test_configs_that_make_no_sense(self, fields: dict[str, Any], says: str) -> None:
        refused(lambda: validate(fields, Base, "data.base"), ConfigError, says)


def test_weights_that_are_a_pipe_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(ModelError, match="a device or a pipe, not a file of weights"):
        open_base(Base(weights=str(tmp_path / "pipe.pth")), (3, 32, 32))
